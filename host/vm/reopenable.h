// Boot files for workers that open them by path, as QEMU does.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "host/vm/resources.h"
#include "vmmhost/schema/vm.capnp.h"

namespace vmmhost::vm {

inline constexpr std::uint64_t kMaxCopiedBytes = std::uint64_t{1} << 30;  // of a VM

struct BootFile {
  std::uint32_t resource = 0;
  std::string field;  // that names it
  std::uint64_t bytes = 0;
  Fd fd;
};

// The files of `boot` (as openResources left it) that a process of these ids may not open anew, whatever path leads to
// them, each with a descriptor of its own. Throws Error that names the field: with it there are more than
// kMaxCopiedBytes, or more than the process may write.
std::vector<BootFile> filesClosedTo(const OpenedResources& resources, schema::Boot::Reader boot, uid_t uid, gid_t gid);

// A copy in memory of each. That may take seconds: not on an event loop. Throws Error that names the field, and once
// `isUnwanted` is set.
std::vector<BootFile> copiesOf(std::vector<BootFile> files, const std::atomic<bool>& isUnwanted);

// Puts `copies` in the place of the files that they are of.
void replaceBootFiles(OpenedResources& resources, std::vector<BootFile> copies);

// The descriptors of all files of `boot`.
std::vector<int> descriptorsOf(const OpenedResources& resources, schema::Boot::Reader boot);

}  // namespace vmmhost::vm
