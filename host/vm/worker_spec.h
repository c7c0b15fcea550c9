// From a VM's spec to how its worker is started and what it is handed.
#pragma once

#include <kj/vector.h>

#include <cstdint>
#include <vector>

#include "host/vm/resources.h"
#include "host/vm/vm_spec.h"
#include "host/vm/worker_process.h"

namespace vmmhost::vm {

// Moves spec.plan into it. `largestDisk`: bytes that the plans of its disks allow one of them; `hasVsock`: descriptors
// for its connections are added.
WorkerSpec workerSpecOf(VmSpec& spec, const OpenedResources& resources, std::uint64_t largestDisk, bool hasVsock);

// What a worker is handed before it creates its VM, a descriptor each.
struct Handover {
  OpenedResources& resources;  // their files and queues are moved out
  const std::vector<plugin::LaunchPlan::Device>& devices;
  std::vector<Fd> consoles;  // the worker's ends
  int counters;
  schema::VmConfig::Reader config;
  const std::string& backend;
};
// Fulfilled when the worker has taken all of them. Throws Error for a device that cannot be opened.
kj::Promise<void> attachAll(WorkerProcess& worker, Handover handover);

}  // namespace vmmhost::vm
