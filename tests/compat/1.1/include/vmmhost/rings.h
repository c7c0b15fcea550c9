// io_uring for a worker that may not make rings: the spawn stub makes them, restricted for good, before the worker's
// first instruction.
//
// A ring made by the worker itself could not be told from one without restrictions (what is asked for lies in memory,
// where no filter looks), and such a ring opens files and makes sockets past every filter. So the base filters allow no
// io_uring_setup at all, and io_uring_enter on the descriptors of these rings only.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "vmmhost/fd.h"

namespace vmmhost::rings {

inline constexpr int kFirstDescriptor = 4;  // in the worker: the first ring; the others follow
inline constexpr unsigned kMaxRings = 32;
inline constexpr unsigned kEntries = 256;  // operations that fit into a ring at a time

// struct io_uring_params as the kernel filled it: where in a ring's mapping its parts lie.
using Geometry = std::array<std::uint8_t, 120>;

// A ring as a worker has it. All that it can do for ever: READV, WRITEV and FSYNC on its one registered file (slot 0,
// empty at first), and io_uring_register with IORING_REGISTER_FILES_UPDATE to say which file that is. Not among them:
// FALLOCATE, whose mode no restriction looks at; it would make files longer and shorter.
struct Ring {
  Fd descriptor;
  Geometry geometry{};
};

// A ring with these restrictions, close-on-exec; a negative errno value if the system offers none (ENOSYS, EPERM where
// it is switched off). Async-signal-safe.
int make(Geometry& geometry) noexcept;
// The same for the process itself. Empty if the system offers none.
Ring make();

// How the stub tells a worker of its rings: the last argument, "rings=" with their number and geometry, which is the
// same for all. Of fixed length, so that it can be written between clone and exec.
inline constexpr std::size_t kArgumentBytes = 6 + 2 + 2 * sizeof(Geometry);
std::array<char, kArgumentBytes + 1> emptyArgument() noexcept;
void writeArgument(char* argument, unsigned count, const Geometry& geometry) noexcept;  // async-signal-safe

// In a worker: the rings that it was started with, taken from its arguments. None if the host gave none.
std::vector<Ring> takeInherited(std::span<char* const> arguments);
// How many rings `argument` tells of; 0 for an argument that is about something else, or garbled.
unsigned parseArgument(std::string_view argument, Geometry& geometry) noexcept;

}  // namespace vmmhost::rings
