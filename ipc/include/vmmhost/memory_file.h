// Memory that two processes share.
#pragma once

#include <cstdint>

#include "vmmhost/fd.h"

namespace vmmhost {

// A file of `bytes` of memory that is not executable (memfd), sealed against shrinking, growing and further seals:
// whoever maps it can rely on its size. `name` is for people who look into /proc. Hosts make them; a worker's filter
// lets it make none, since nobody counts them where there is no control group. Throws Error.
Fd makeMemoryFile(const char* name, std::uint64_t bytes);

}  // namespace vmmhost
