// What a worker costs besides its guest's memory.
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace vmmhost::vm {

// Private (Private_Clean + Private_Dirty of /proc/PID/smaps) bytes of the process in mappings that are not guest
// memory, and likewise of its children. A mapping counts as guest memory when it is at least as large as the guest's
// memory or its part below 3 GiB, or just as large as its part above. 0: not readable.
std::uint64_t privateBytesOutsideGuest(pid_t pid, std::uint64_t guestMemoryBytes);

}  // namespace vmmhost::vm
