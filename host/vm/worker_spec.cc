#include "host/vm/worker_spec.h"

#include <fcntl.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "host/plugin/watches.h"
#include "host/vm/reopenable.h"
#include "host/vm/vsock.h"
#include "ipc/jail/spawn/limits.h"
#include "vmmhost/memory_file.h"

namespace vmmhost::vm {
namespace {

constexpr std::uint64_t kDefaultOverhead = std::uint64_t{64} << 20;
constexpr std::uint64_t kMostCopiedBytes = std::uint64_t{1} << 30;  // of a kernel, into memory
constexpr std::uint64_t kScratchBytes = std::uint64_t{64} << 20;    // of the private /tmp that a plan may ask for
constexpr std::uint32_t kLeastThreads = 2;                          // of a worker, besides those of virtual CPUs
constexpr std::uint64_t kOtherAddresses = std::uint64_t{1} << 30;
constexpr std::uint64_t kStackBytes = std::uint64_t{8} << 20;
constexpr std::uint64_t kLeastStackBytes = std::uint64_t{256} << 10;
constexpr std::uint16_t kMinorOfMemory = 2;  // of the worker protocol

// How long any file may become that the worker writes: its disks as planned, and what it makes for itself.
std::uint64_t fileLimit(const OpenedResources& resources, std::uint64_t largestDisk, schema::VmConfig::Reader config,
                        const plugin::LaunchPlan& plan) {
  std::uint64_t limit = largestDisk;
  if (plan.hasOldPolicy) {  // workers of others are given such memory by the host
    if (config.getMemory().getShared()) {
      limit = std::max(limit, config.getMemory().getSize());
    }
    if (plan.seccompPolicy.has(seccomp::grant::kPrograms)) {  // which may need copies of what they cannot open anew
      limit = std::max(limit, std::min(resources.largestBootFile, kMostCopiedBytes));
    }
  }
  if (plan.seccompPolicy.has(seccomp::grant::kMemoryFiles)) {  // files as well, that have no other limit
    limit = std::max(limit, config.getMemory().getSize());
  }
  if (plan.tmp) {
    limit = std::max(limit, kScratchBytes);
  }
  for (const auto& asked : plan.rlimits) {
    if (asked.resource == RLIMIT_FSIZE) {
      limit = std::min<std::uint64_t>(limit, asked.value);
    }
  }
  return limit;
}

}  // namespace

WorkerSpec workerSpecOf(VmSpec& spec, const OpenedResources& resources, std::uint64_t largestDisk, bool hasVsock) {
  const auto config = spec.config->getRoot<schema::VmConfig>().asReader();
  const std::uint64_t overhead = spec.plan.overheadBytes == 0 ? kDefaultOverhead : spec.plan.overheadBytes;
  const std::uint64_t memory = config.getMemory().getSize();
  const std::uint32_t processes =
      spec.plan.maxProcesses == 0 ? config.getCpus().getCount() + 8 : spec.plan.maxProcesses;
  WorkerSpec worker;
  worker.plan = std::move(spec.plan);
  worker.uid = spec.uid;
  worker.gid = spec.gid;
  worker.without = spec.without;
  worker.explainsJail = spec.explainsJail;
  // Who makes instances of epoll itself has few descriptors, whatever they are for.
  const bool mayHaveMany = worker.plan.epolls > 0 || worker.plan.hasOldPolicy;
  const std::uint32_t further = plugin::furtherDescriptors(
      worker.plan, hasVsock && mayHaveMany ? std::uint32_t{Vsock::kMaxConnections} : 0U, plugin::watchesOfAUser());
  worker.maxDescriptors = static_cast<int>(worker.plan.maxDescriptors + further);
  if (worker.plan.reopensBootFiles) {
    worker.readable = descriptorsOf(resources, config.getBoot());
  }
  worker.group = jailed::Group{spec.groupName, memory + overhead, processes, spec.onCgroups};
  // Under the others programs and sanitizers map more than a VM has.
  const auto& policy = worker.plan.seccompPolicy;
  const bool isBounded = policy.isComposed() ? !policy.has(seccomp::grant::kPrograms) : policy == "worker-static";
  worker.rlimits = {
      {RLIMIT_FSIZE, fileLimit(resources, largestDisk, config, worker.plan), largestDisk},
      {RLIMIT_NPROC, processes, config.getCpus().getCount() + kLeastThreads},
      {RLIMIT_DATA, isBounded ? memory + overhead : RLIM_INFINITY, memory + overhead},
      // Page tables of what is only read are counted by nothing else. Of others it may be limited by whoever started
      // the host.
      {RLIMIT_AS, isBounded ? 2 * memory + overhead + kOtherAddresses : RLIM_INFINITY, memory + overhead}};
  bool hasStack = false;
  for (const auto& limit : worker.plan.rlimits) {
    hasStack = hasStack || limit.resource == RLIMIT_STACK;
    if (limit.resource != RLIMIT_FSIZE) {
      worker.rlimits.push_back({limit.resource, limit.value});
    }
  }
  if (!hasStack) {
    worker.rlimits.push_back({RLIMIT_STACK, kStackBytes, kLeastStackBytes});
  }
  return worker;
}

kj::Promise<void> attachAll(WorkerProcess& worker, Handover handover) {
  kj::Vector<kj::Promise<void>> attached;
  auto attach = [&](auto fill, Fd descriptor) {
    auto request = worker.worker().attachRequest();
    fill(request.initResource());
    request.setDescriptor(rpc::makeDescriptor(std::move(descriptor)));
    attached.add(request.send().then(rpc::guarded([](auto&& response) { rpc::throwIfError(response); })));
  };
  for (auto& file : handover.resources.files) {
    attach([&](auto resource) { resource.setFile(file.resource); }, std::move(file.fd));
  }
  handover.resources.files.clear();
  for (auto& queue : handover.resources.nicQueues) {
    attach(
        [&](auto resource) {
          auto nic = resource.initNic();
          nic.setIndex(queue.nic);
          nic.setQueue(queue.queue);
        },
        std::move(queue.fd));
  }
  handover.resources.nicQueues.clear();
  for (const auto& device : handover.devices) {
    Fd fd(::open(device.path.c_str(), O_RDWR | O_CLOEXEC));
    if (!fd) {
      if (device.optional) {
        continue;
      }
      throw Error(ErrorCode::kUnavailable,
                  "backend " + handover.backend + ": " + systemError(device.path, errno).message(),
                  errno == EACCES ? "`vmmhost doctor` tells how to get at it" : "`vmmhost backends` tells more");
    }
    attach([&](auto resource) { resource.setDevice(device.name); }, std::move(fd));
  }
  for (std::uint32_t port = 0; port < handover.consoles.size(); ++port) {
    attach([&](auto resource) { resource.setConsole(port); }, std::move(handover.consoles[port]));
  }
  attach([&](auto resource) { resource.setCounters(); }, duplicate(handover.counters));
  if (handover.config.getMemory().getShared() && worker.protocolMinor() >= kMinorOfMemory) {
    const std::uint64_t memory = handover.config.getMemory().getSize();
    if (const auto error = spawn::tooLow(RLIMIT_FSIZE, memory, "the shared memory of this VM")) {
      throw *error;
    }
    attach([&](auto resource) { resource.setMemory(); }, makeMemoryFile("guest-memory", memory));
  }
  return kj::joinPromises(attached.releaseAsArray());
}

}  // namespace vmmhost::vm
