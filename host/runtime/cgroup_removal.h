// Removes the cgroups that a dead supervisor left.
#pragma once

#include <string>

namespace vmmhost::runtime {

enum class CgroupRemoval {
  kGone,     // it is not there any more
  kRefused,  // not a cgroup of vmmhost, or not ours to remove: never will be
  kBusy,     // something in it does not end: try again later
};

// Kills what is still in the cgroup and removes it. Only folders of a cgroup file system below /sys/fs/cgroup with a
// component that begins with "vmmhost" are touched, and none that the caller itself is in. Blocks until what was
// killed is gone, at most 2 s. Never throws.
CgroupRemoval removeCgroup(const std::string& path) noexcept;

}  // namespace vmmhost::runtime
