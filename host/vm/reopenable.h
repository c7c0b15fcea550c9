// Boot files for workers that open them by path, as QEMU does.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "host/vm/resources.h"
#include "vmmhost/schema/vm.capnp.h"

namespace vmmhost::vm {

inline constexpr std::uint64_t kMaxCopiedBytes = std::uint64_t{1} << 30;

// Puts a copy in memory in the place of each file of `boot` (as openResources left it) that a process of these ids may
// not open anew, whatever path leads to it. Throws Error that names the field: larger than kMaxCopiedBytes, or
// unreadable.
void makeReopenable(OpenedResources& resources, schema::Boot::Reader boot, uid_t uid, gid_t gid);

}  // namespace vmmhost::vm
