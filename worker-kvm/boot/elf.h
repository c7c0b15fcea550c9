// ELF kernels with a PVH entry: a strict parser over what a file says, apart from any loading.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "worker-kvm/memory/guest_memory.h"

namespace vmmhost::kvm::boot {

// Bytes of a file, wherever they are.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Fills `target` from `offset`; the number of bytes read is smaller only at the end of the file. Throws Error.
  virtual std::size_t read(std::uint64_t offset, memory::Bytes target) const = 0;
};

// A PT_LOAD segment that has memory. `index` is its number among the program headers.
struct Segment {
  std::uint32_t index = 0;
  std::uint64_t fileOffset = 0;
  std::uint64_t fileBytes = 0;
  memory::Range memory;  // physical addresses; at least fileBytes long
};

struct KernelImage {
  std::uint32_t entry = 0;  // inside one of the segments
  std::vector<Segment> segments;
};

// Bounds that no kernel comes near.
inline constexpr std::uint16_t kMaxProgramHeaders = 128;
inline constexpr std::uint64_t kMaxNoteBytes = 64 * 1024;

// Reads the headers of an ELF file (32 or 64 bits, x86, little-endian). Throws kInvalidArgument that names what is
// wrong: not ELF, another machine, no PVH note, a header, note or segment beyond the end of the file, segments that
// overlap, lie below 1 MiB or overflow, an entry outside them.
KernelImage parseElf(const ByteSource& file);

// The value of the XEN_ELFNOTE_PHYS32_ENTRY note among ELF notes, or nothing. Malformed notes end the search.
std::optional<std::uint64_t> findPvhEntry(memory::ConstBytes notes, std::uint64_t alignment);

}  // namespace vmmhost::kvm::boot
