#include "host/vm/vm.h"

#include <fcntl.h>
#include <kj/vector.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <cerrno>

#include "host/base/clock.h"
#include "host/plugin/watches.h"
#include "host/runtime/sockets.h"
#include "host/vm/aside.h"
#include "ipc/jail/spawn/limits.h"
#include "vmmhost/memory_file.h"

namespace vmmhost::vm {
namespace {

using schema::EndCause;
using schema::EndKind;
using schema::VmState;

constexpr std::uint64_t kDefaultOverhead = std::uint64_t{64} << 20;
constexpr std::uint64_t kMostCopiedBytes = std::uint64_t{1} << 30;  // of a kernel, into memory
constexpr std::uint64_t kScratchBytes = std::uint64_t{64} << 20;    // of the private /tmp that a plan may ask for
constexpr std::uint32_t kLeastThreads = 2;                          // of a worker, besides those of virtual CPUs
constexpr std::uint64_t kOtherAddresses = std::uint64_t{1} << 30;
constexpr std::uint64_t kStackBytes = std::uint64_t{8} << 20;
constexpr std::uint64_t kLeastStackBytes = std::uint64_t{256} << 10;
constexpr std::uint16_t kMinorOfMemory = 2;  // of the worker protocol

// How long any file may become that the worker writes: its disks as planned, and what it makes for itself.
std::uint64_t fileLimit(const OpenedResources& resources, schema::VmConfig::Reader config,
                        const plugin::LaunchPlan& plan) {
  std::uint64_t limit = resources.diskPlans.largest();
  if (plan.hasOldPolicy) {  // workers of others are given such memory by the host
    if (config.getMemory().getShared()) {
      limit = std::max(limit, config.getMemory().getSize());
    }
    if (plan.seccompPolicy == "worker-system") {  // whose programs may need copies of what they cannot open anew
      limit = std::max(limit, std::min(resources.largestBootFile, kMostCopiedBytes));
    }
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

const char* stateName(VmState state) {
  switch (state) {
    case VmState::PREPARING:
      return "being prepared";
    case VmState::CREATED:
      return "created";
    case VmState::RUNNING:
      return "running";
    case VmState::PAUSED:
      return "paused";
    case VmState::STOPPING:
      return "stopping";
    case VmState::ENDED:
      return "ended";
  }
  return "in an unknown state";
}

}  // namespace

// Receives the worker's events. It may outlive the VM in the RPC system, so it only reaches it while it lives.
class Vm::Sink final : public schema::EventSink::Server {
 public:
  Sink(std::shared_ptr<Vm*> vm, kj::Timer& timer) : vm_(std::move(vm)), timer_(timer) {}

  // Not one call at a time, as streams have it: an end is not to wait behind answers that are held back.
  DispatchCallResult dispatchCall(std::uint64_t interfaceId, std::uint16_t methodId,
                                  capnp::CallContext<capnp::AnyPointer, capnp::AnyPointer> context) override {
    auto result = schema::EventSink::Server::dispatchCall(interfaceId, methodId, context);
    result.isStreaming = false;
    return result;
  }
  kj::Promise<void> event(EventContext context) override {
    if (*vm_ == nullptr) {
      return kj::READY_NOW;
    }
    const kj::Duration wait = (*vm_)->noteEvent(context.getParams().getEvent());
    if (wait == 0 * kj::NANOSECONDS) {
      return kj::READY_NOW;
    }
    if (++*heldBack_ > kMostHeldBack) {
      (*vm_)->blameForEvents();
    }
    return timer_.afterDelay(wait).attach(kj::defer([heldBack = heldBack_]() { --*heldBack; }));
  }

 private:
  // Answers. The SDK's window for events is about 32 calls, and the connection bears 64.
  static constexpr unsigned kMostHeldBack = 48;

  std::shared_ptr<Vm*> vm_;
  kj::Timer& timer_;
  std::shared_ptr<unsigned> heldBack_ = std::make_shared<unsigned>(0);
};

Vm::Vm(kj::AsyncIoContext& io, VmSpec spec, Log& log, MemoryMeter& meter)
    : io_(io),
      spec_(std::move(spec)),
      log_(log),
      meter_(meter),
      self_(std::make_shared<Vm*>(this)),
      eventRate_(io.provider->getTimer().now()),
      panicRate_(io.provider->getTimer().now()),
      resetLines_(log, Severity::kInfo, "vm"),
      panicLines_(log, Severity::kWarning, "guest"),
      fullDiskLines_(log, Severity::kWarning, "disk") {
  original_.setRoot(spec_.config->getRoot<schema::VmConfig>().asReader());
  originalConfig_ = original_.getRoot<schema::VmConfig>().asReader();
  auto paf = kj::newPromiseAndFulfiller<void>();
  endedFulfiller_ = kj::mv(paf.fulfiller);
  ended_ = paf.promise.fork();
  auto console = kj::newPromiseAndFulfiller<void>();
  consoleFulfiller_ = kj::mv(console.fulfiller);
  consoleReady_ = console.promise.fork();
  nameAbilities();
}

Vm::~Vm() {
  *self_ = nullptr;
}

Vm::Watch::~Watch() {
  if (list != nullptr) {
    list->erase(position);
  }
}

std::unique_ptr<Vm::Watch> Vm::watch(Watcher watcher) {
  auto watch = std::make_unique<Watch>();
  watchers_.push_back(std::move(watcher));
  watch->list = &watchers_;
  watch->position = std::prev(watchers_.end());
  return watch;
}

void Vm::mark(const char* phase) {
  timings_.emplace_back(phase, monotonicNanoseconds());
}

void Vm::setState(VmState state, const std::string& detail) {
  if (state == state_) {
    return;
  }
  state_ = state;
  log_.write(Severity::kInfo, "vm", std::string(stateName(state)) + (detail.empty() ? "" : ": " + detail));
  for (auto next = watchers_.begin(); next != watchers_.end();) {
    const auto current = next++;
    (*current)(state, unixMilliseconds(), detail);
  }
}

kj::Promise<void> Vm::start() {
  startedUnixMs_ = unixMilliseconds();
  if (spec_.timeout.count() > 0) {
    timeout_ = io_.provider->getTimer()
                   .afterDelay(spec_.timeout.count() * kj::MILLISECONDS)
                   .then([this]() {
                     beginEnd(EndKind::TIMEOUT, EndCause::UNKNOWN,
                              "it had " + std::to_string(spec_.timeout.count()) + " ms", std::nullopt);
                   })
                   .eagerlyEvaluate(nullptr);
  }
  return kj::evalNow(rpc::guarded([this]() { return launch(); })).catch_([this](kj::Exception&& exception) {
    auto explained =
        worker_ ? worker_->process().explain(kj::mv(exception)) : kj::Promise<Error>(rpc::fromKj(exception));
    return explained.then([this](const Error& error) {
      beginEnd(EndKind::START_FAILED, EndCause::UNKNOWN, error.message(), error);
      return onEnded().then([this, error]() -> kj::Promise<void> {
        // A guest that ended at once did run, and one that was ended on purpose has not failed: the outcome tells.
        const bool failed = outcome_.kind == EndKind::START_FAILED || outcome_.kind == EndKind::WORKER_DIED;
        return failed ? rpc::fail(outcome_.error.value_or(error)) : kj::Promise<void>(kj::READY_NOW);
      });
    });
  });
}

kj::Promise<void> Vm::launch() {
  auto config = spec_.config->getRoot<schema::VmConfig>();
  resources_ = openResources(config, spec_.workingDirectory);
  std::vector<BootFile> closed;
  if (spec_.plan.reopensBootFiles) {
    closed = filesClosedTo(resources_, config.asReader().getBoot(), spec_.uid, spec_.gid);
  }
  if (closed.empty()) {
    return launchWorker();
  }
  auto files = std::make_shared<std::vector<BootFile>>(std::move(closed));
  return runAside<std::vector<BootFile>>(
             io_.unixEventPort,
             [files, unwanted = bootFilesUnwanted_]() { return copiesOf(std::move(*files), *unwanted); },
             [unwanted = bootFilesUnwanted_]() { unwanted->store(true); })
      .then(rpc::guarded([this](std::vector<BootFile>&& copies) {
        takeBootFiles(std::move(copies));
        return launchWorker();
      }));
}

void Vm::takeBootFiles(std::vector<BootFile> copies) {
  if (ending_) {
    throw Error(ErrorCode::kCancelled, "the VM was ended while its boot files were copied");
  }
  for (BootFile& copy : copies) {
    for (auto& opened : resources_.files) {
      if (opened.resource == copy.resource) {
        opened.fd = std::move(copy.fd);
      }
    }
  }
}

kj::Promise<void> Vm::launchWorker() {
  auto config = spec_.config->getRoot<schema::VmConfig>();
  prepareVsock(config);
  mark("files-open");

  const std::uint64_t overhead = spec_.plan.overheadBytes == 0 ? kDefaultOverhead : spec_.plan.overheadBytes;
  const std::uint64_t memory = config.getMemory().getSize();
  const std::uint32_t processes =
      spec_.plan.maxProcesses == 0 ? config.getCpus().getCount() + 8 : spec_.plan.maxProcesses;
  WorkerSpec worker;
  worker.plan = std::move(spec_.plan);
  worker.uid = spec_.uid;
  worker.gid = spec_.gid;
  worker.without = spec_.without;
  // Who makes instances of epoll itself has few descriptors, whatever they are for.
  const bool mayHaveMany = worker.plan.epolls > 0 || worker.plan.hasOldPolicy;
  const std::uint32_t further = plugin::furtherDescriptors(
      worker.plan, vsock_ && mayHaveMany ? std::uint32_t{Vsock::kMaxConnections} : 0U, plugin::watchesOfAUser());
  worker.maxDescriptors = static_cast<int>(worker.plan.maxDescriptors + further);
  if (worker.plan.reopensBootFiles) {
    worker.readable = descriptorsOf(resources_, config.asReader().getBoot());
  }
  worker.group = jailed::Group{spec_.groupName, memory + overhead, processes, spec_.onCgroups};
  worker.mark = [this](const char* phase) { mark(phase); };
  const bool isStatic = worker.plan.seccompPolicy == "worker-static";
  worker.rlimits = {{RLIMIT_FSIZE, fileLimit(resources_, config, worker.plan), resources_.diskPlans.largest()},
                    {RLIMIT_NPROC, processes, config.getCpus().getCount() + kLeastThreads},
                    {RLIMIT_DATA, isStatic ? memory + overhead : RLIM_INFINITY, memory + overhead},
                    // Page tables of what is only read are counted by nothing else. Of others it may be limited by
                    // whoever started the host.
                    {RLIMIT_AS, isStatic ? 2 * memory + overhead + kOtherAddresses : RLIM_INFINITY, memory + overhead}};
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
  devices_ = std::move(worker.plan.devices);
  createTimeout_ = worker.plan.createTimeout;
  worker_ = std::make_unique<WorkerProcess>(io_, std::move(worker), log_);
  mark("worker-spawned");

  counters_ = std::make_unique<counters::HostPage>();
  makeConsoles();
  consoleFulfiller_->fulfill();
  auto greeted = worker_->handshake();
  watchWorker();
  return greeted.then(rpc::guarded([this]() { return handOver(); }));
}

void Vm::makeConsoles() {
  const std::uint32_t count = std::max(1U, originalConfig_.getConsoles().size());
  for (std::uint32_t port = 0; port < count; ++port) {
    // A guest that talks faster than it is heard must not hang a device thread for ever.
    rpc::SocketPair pair = rpc::makeSocketPair(rpc::RemoteEnd::kNonBlocking);
    consoleRemotes_.push_back(std::move(pair.remote));
    consoles_.push_back(
        std::make_unique<Console>(io_, std::move(pair.local), spec_.consoleFile ? spec_.consoleFile(port) : nullptr));
  }
}

void Vm::prepareVsock(schema::VmConfig::Builder config) {
  if (!config.hasVsock() || !config.getVsock().getEnabled()) {
    return;
  }
  if (!spec_.vsockFolder) {
    throw Error(ErrorCode::kUnsupported, "vsock: there is no folder for the VM's sockets",
                "a program that embeds vmmhost names one (VmOptions::vsockFolder)");
  }
  if (config.getVsock().getCid() == 0) {
    config.getVsock().setCid(Vsock::kDefaultCid);
  }
  vsock_ = std::make_unique<Vsock>(io_, std::move(spec_.vsockFolder),
                                   spec_.vsockFolderPath + '/' + runtime::kVsockSocket, log_);
}

void Vm::attachAll(kj::Vector<kj::Promise<void>>& attached) {
  auto attach = [&](auto fill, Fd descriptor) {
    auto request = worker_->worker().attachRequest();
    fill(request.initResource());
    request.setDescriptor(rpc::makeDescriptor(std::move(descriptor)));
    attached.add(request.send().then(rpc::guarded([](auto&& response) { rpc::throwIfError(response); })));
  };
  for (auto& file : resources_.files) {
    attach([&](auto resource) { resource.setFile(file.resource); }, std::move(file.fd));
  }
  resources_.files.clear();
  for (auto& queue : resources_.nicQueues) {
    attach(
        [&](auto resource) {
          auto nic = resource.initNic();
          nic.setIndex(queue.nic);
          nic.setQueue(queue.queue);
        },
        std::move(queue.fd));
  }
  resources_.nicQueues.clear();
  for (const auto& device : devices_) {
    Fd fd(::open(device.path.c_str(), O_RDWR | O_CLOEXEC));
    if (!fd) {
      if (device.optional) {
        continue;
      }
      throw Error(ErrorCode::kUnavailable,
                  "backend " + spec_.backend + ": " + systemError(device.path, errno).message(),
                  errno == EACCES ? "`vmmhost doctor` tells how to get at it" : "`vmmhost backends` tells more");
    }
    attach([&](auto resource) { resource.setDevice(device.name); }, std::move(fd));
  }
  for (std::uint32_t port = 0; port < consoleRemotes_.size(); ++port) {
    attach([&](auto resource) { resource.setConsole(port); }, std::move(consoleRemotes_[port]));
  }
  consoleRemotes_.clear();
  attach([&](auto resource) { resource.setCounters(); }, duplicate(counters_->descriptor()));
  if (originalConfig_.getMemory().getShared() && worker_->protocolMinor() >= kMinorOfMemory) {
    const std::uint64_t memory = originalConfig_.getMemory().getSize();
    if (const auto error = spawn::tooLow(RLIMIT_FSIZE, memory, "the shared memory of this VM")) {
      throw *error;
    }
    attach([&](auto resource) { resource.setMemory(); }, makeMemoryFile("guest-memory", memory));
  }
}

void Vm::takeVm(schema::Worker::CreateResults::Reader created) {
  try {
    rpc::throwIfError(created);
  } catch (const Error& error) {
    throw nameFile(error, originalConfig_);
  }
  if (!created.hasVm()) {
    throw Error(ErrorCode::kProtocol, "the worker created no VM and gave no reason");
  }
  vm_ = created.getVm();
  const auto abilities = created.getAbilities();
  abilities_.take(abilities);
  balloonTarget_ = originalConfig_.getBalloon().getTargetSize();
  if (vsock_ && !abilities.hasVsock()) {
    throw Error(ErrorCode::kProtocol, "the worker made no vsock device, and did not say so");
  }
  mark("vm-created");
  worker_->verify();
  mark("verified-again");
  if (vsock_) {
    vsock_->connectTo(abilities.getVsock());
  }
  setState(VmState::CREATED);
}

kj::Promise<void> Vm::handOver() {
  kj::Vector<kj::Promise<void>> attached;
  attachAll(attached);
  auto request = worker_->worker().createRequest();
  request.setConfig(spec_.config->getRoot<schema::VmConfig>().asReader());
  request.setEvents(kj::heap<Sink>(self_, io_.provider->getTimer()));
  if (vsock_) {
    request.setVsock(vsock_->host());
  }
  // Sent before the others are answered, to save a turn; acted upon only when they were.
  kj::Promise<capnp::Response<schema::Worker::CreateResults>> created = request.send();
  auto all = kj::joinPromises(attached.releaseAsArray())
                 .then([created = kj::mv(created)]() mutable { return kj::mv(created); })
                 .then(rpc::guarded([this](capnp::Response<schema::Worker::CreateResults>&& response) {
                   takeVm(response);
                   return vm_.startRequest().send();
                 }))
                 .then(rpc::guarded([](auto&& started) { rpc::throwIfError(started); }));
  return rpc::withDeadline(io_.provider->getTimer(), createTimeout_, "creating the VM in the worker", kj::mv(all))
      .then([this]() {
        mark("guest-runs");
        if (!ending_) {
          setState(VmState::RUNNING);
        }
      });
}

void Vm::requireAnswering(const std::string& verb) const {
  if (ending_ || (state_ != VmState::RUNNING && state_ != VmState::PAUSED)) {
    throw Error(ErrorCode::kFailedPrecondition, "cannot " + verb + " a VM that is " + stateName(state_));
  }
  if (worker_->process().isStuck()) {
    throw Error(ErrorCode::kUnavailable, verb + ": the worker has not answered those before",
                "`vmmhost stop` ends it without asking", true);
  }
}

kj::Promise<Error> Vm::explain(kj::Exception exception) {
  return worker_->process().explain(kj::mv(exception));
}

kj::Promise<void> Vm::stop(EndKind kind, std::string reason, int signal) {
  isEndForced_ = true;
  if (endForced_) {
    endForced_->fulfill();
  }
  beginEnd(kind, EndCause::UNKNOWN, std::move(reason), std::nullopt, signal);
  return onEnded();
}

void Vm::requireConsole(std::uint32_t port) const {
  if (consoles_.empty()) {
    throw Error(ErrorCode::kFailedPrecondition,
                std::string("the VM is ") + stateName(state_) + ": its console is not there");
  }
  if (port >= consoles_.size()) {
    throw Error(ErrorCode::kNotFound, "the VM has no console " + std::to_string(port) + ": it has " +
                                          std::to_string(consoles_.size()) + ", from 0 on");
  }
}

Fd Vm::attachConsole(std::uint32_t replayBytes, bool input, std::uint32_t port) {
  requireConsole(port);
  return consoles_[port]->attach(replayBytes, input);
}

}  // namespace vmmhost::vm
