// Cleans up user id leases that dead processes left.
#pragma once

#include <string>

#include "host/runtime/directories.h"

namespace vmmhost::runtime {

inline constexpr char kUidFolder[] = ".uids";  // no entry can have this name

// Removes the files of leases that nobody holds. Never throws.
void sweepUidLeases(const std::string& folder = UidLease::kMachineFolder) noexcept;

}  // namespace vmmhost::runtime
