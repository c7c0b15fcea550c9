// Opens what a configuration names, so that workers never see a path.
#pragma once

#include <capnp/message.h>

#include <cstdint>
#include <string>
#include <vector>

#include "host/vm/disk_plan.h"
#include "vmmhost/error.h"
#include "vmmhost/fd.h"
#include "vmmhost/schema/vm.capnp.h"

namespace vmmhost::vm {

struct OpenedResources {
  struct File {
    std::uint32_t resource;
    Fd fd;
  };
  std::vector<File> files;
  struct NicQueue {
    std::uint32_t nic;
    std::uint32_t queue;
    Fd fd;
  };
  std::vector<NicQueue> nicQueues;
  // Locks on disks, held on open file descriptions of their own that are never passed on.
  std::vector<Fd> locks;
  DiskPlans diskPlans;                // of the regular files among the writable disks
  std::uint64_t largestBootFile = 0;  // bytes, of kernel, initrd and firmware
};

// Opens every file of `config` relative to `workingDirectory` and replaces each path by a resource number; opens the
// TAP devices, and fills in addresses and MTUs of network cards that were left open. Throws Error with field and
// path: not there, not a regular file (a disk may be a block device), empty, no whole sectors, no image of the format,
// in use by another VM, by the host (a block device), or by two disks of this one.
OpenedResources openResources(schema::VmConfig::Builder config, const std::string& workingDirectory);

// A worker knows files by the fields that name them: `error` of a worker, with the path of the file that its field
// ("boot.kernel", "disks[1].format") is about in its message. `config` is as it was before openResources.
Error nameFile(const Error& error, schema::VmConfig::Reader config);

}  // namespace vmmhost::vm
