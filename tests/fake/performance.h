// What a guest of tests/guests does, as far as it shows from outside.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "vmmhost/fd.h"
#include "vmmhost/schema/worker.capnp.h"

namespace vmmhost::fake {

// The name in the note that tests/guests/guest.inc puts into each guest. Throws Error (kInvalidArgument) for a file
// that is no whole ELF executable, or has no such note.
std::string guestName(int kernel);

struct Props {
  std::string commandLine;
  std::uint64_t memoryBytes = 0;
  Fd initrd;  // may be empty
};

struct Performance {
  enum class Then { kEnd, kEcho, kLoop, kCount };
  std::string says;
  Then then = Then::kEnd;
  std::string lastWords;             // after kEcho
  std::vector<std::string> further;  // before kLoop, each for a byte of input
  schema::EndCause cause = schema::EndCause::POWER_OFF;
  std::string detail;
  // What worker-kvm counts for it besides two port accesses for each byte of output.
  std::uint64_t exits = 0;
  std::uint64_t portExits = 0;
  std::uint64_t mmioExits = 0;
  std::uint64_t unknownPortReads = 0;
  std::uint64_t unknownPortWrites = 0;
  std::uint64_t unknownMmio = 0;
};

// Throws Error (kUnsupported) for a guest that nobody has written down yet.
Performance performanceOf(const std::string& guest, const Props& props);

}  // namespace vmmhost::fake
