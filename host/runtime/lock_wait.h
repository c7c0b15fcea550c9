// Waiting for a lock of an open file (F_OFD_*), but not for ever.
#pragma once

#include <fcntl.h>

#include <chrono>

namespace vmmhost::runtime {

// True: `file` has the lock. False: others had it for all of `patience`. Blocks. Throws Error.
bool lockWithin(int file, struct flock lock, std::chrono::milliseconds patience);

}  // namespace vmmhost::runtime
