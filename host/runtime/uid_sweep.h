// Cleans up user id leases that dead processes left.
#pragma once

#include "host/runtime/directories.h"

namespace vmmhost::runtime {

inline constexpr char kUidFolder[] = ".uids";  // no VM can have this name

// Removes the files of leases that nobody holds. Never throws.
void sweepUidLeases(const Directories& directories) noexcept;

}  // namespace vmmhost::runtime
