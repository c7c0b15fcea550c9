// What a worker costs besides its guest's memory.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>

#include "vmmhost/fd.h"

namespace vmmhost::vm {

// /proc/PID, opened: what is asked of it later is asked of this process and no other. Empty: there is none.
Fd openProcess(pid_t pid);

// Private (Private_Clean + Private_Dirty of /proc/PID/smaps) bytes of a process in mappings that are not guest memory,
// and likewise of its children. A mapping counts as guest memory when it is at least as large as the guest's memory or
// its part below 3 GiB, or just as large as its part above. 0: not readable, or given up.
// How long it takes is up to the process, which may have as many mappings as it likes: never on an event loop (see
// MemoryMeter). `giveUp` is asked after a few mappings each; empty: never.
std::uint64_t privateBytesOutsideGuest(const Fd& process, std::uint64_t guestMemoryBytes,
                                       const std::function<bool()>& giveUp = {});

}  // namespace vmmhost::vm
