#include "host/vm/vm.h"

#include <algorithm>

#include "host/runtime/sockets.h"
#include "host/vm/aside.h"
#include "host/vm/reopenable.h"
#include "host/vm/worker_spec.h"

namespace vmmhost::vm {
namespace {

using schema::EndCause;
using schema::EndKind;
using schema::VmState;

}  // namespace

Vm::Vm(kj::AsyncIoContext& io, VmSpec spec, Log& log, MemoryMeter& meter)
    : io_(io),
      spec_(std::move(spec)),
      log_(log),
      originalConfig_([this]() {
        original_.setRoot(spec_.config->getRoot<schema::VmConfig>().asReader());
        return original_.getRoot<schema::VmConfig>().asReader();
      }()),
      life_(log),
      disks_(io.unixEventPort, log),
      consoles_(io, life_),
      memory_(io.provider->getTimer(), meter, originalConfig_.getMemory().getSize()),
      events_(io.provider->getTimer(), log, life_, originalConfig_,
              [this](WorkerEvents::End end) { beginEnd(std::move(end)); }),
      abilities_({io.provider->getTimer(), log, life_, consoles_, originalConfig_, spec_.backend}) {
  auto paf = kj::newPromiseAndFulfiller<void>();
  endedFulfiller_ = kj::mv(paf.fulfiller);
  ended_ = paf.promise.fork();
}

Vm::~Vm() = default;

kj::Promise<void> Vm::start() {
  life_.noteStart();
  if (spec_.timeout.count() > 0) {
    timeout_ = io_.provider->getTimer()
                   .afterDelay(spec_.timeout.count() * kj::MILLISECONDS)
                   .then([this]() {
                     beginEnd({EndKind::TIMEOUT, EndCause::UNKNOWN,
                               "it had " + std::to_string(spec_.timeout.count()) + " ms", std::nullopt});
                   })
                   .eagerlyEvaluate(nullptr);
  }
  return kj::evalNow(rpc::guarded([this]() { return launch(); })).catch_([this](kj::Exception&& exception) {
    auto explained =
        worker_ ? worker_->process().explain(kj::mv(exception)) : kj::Promise<Error>(rpc::fromKj(exception));
    return explained.then([this](const Error& error) {
      beginEnd({EndKind::START_FAILED, EndCause::UNKNOWN, error.message(), error});
      return onEnded().then([this, error]() -> kj::Promise<void> {
        // A guest that ended at once did run, and one that was ended on purpose has not failed: the outcome tells.
        const bool failed = outcome_.kind == EndKind::START_FAILED || outcome_.kind == EndKind::WORKER_DIED;
        return failed ? rpc::fail(outcome_.error.value_or(error)) : kj::Promise<void>(kj::READY_NOW);
      });
    });
  });
}

void Vm::requireWanted(const char* doing) const {
  if (life_.isEnding()) {
    throw Error(ErrorCode::kCancelled, std::string("the VM was ended ") + doing);
  }
}

kj::Promise<void> Vm::launch() {
  requireWanted("before it was started");
  auto config = spec_.config->getRoot<schema::VmConfig>();
  resources_ = openResources(config, spec_.workingDirectory);
  disks_.setPlans(std::move(resources_.diskPlans));
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
        requireWanted("while its boot files were copied");
        replaceBootFiles(resources_, std::move(copies));
        return launchWorker();
      }));
}

kj::Promise<void> Vm::launchWorker() {
  prepareVsock(spec_.config->getRoot<schema::VmConfig>());
  life_.mark("files-open");

  WorkerSpec worker = workerSpecOf(spec_, resources_, disks_.largest(), vsock_ != nullptr);
  worker.mark = [this](const char* phase) { life_.mark(phase); };
  devices_ = std::move(worker.plan.devices);
  createTimeout_ = worker.plan.createTimeout;
  worker_ = std::make_unique<WorkerProcess>(io_, std::move(worker), log_);
  life_.mark("worker-spawned");

  counters_ = std::make_unique<counters::HostPage>();
  auto consoles = consoles_.make(std::max(1U, originalConfig_.getConsoles().size()), spec_.consoleFile);
  auto greeted = worker_->handshake();
  watchWorker();
  return greeted.then(
      rpc::guarded([this, consoles = std::move(consoles)]() mutable { return handOver(std::move(consoles)); }));
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

kj::Promise<void> Vm::handOver(std::vector<Fd> consoles) {
  auto attached = attachAll(
      *worker_, {resources_, devices_, std::move(consoles), counters_->descriptor(), originalConfig_, spec_.backend});
  auto request = worker_->worker().createRequest();
  request.setConfig(spec_.config->getRoot<schema::VmConfig>().asReader());
  request.setEvents(events_.sink());
  if (vsock_) {
    request.setVsock(vsock_->host());
  }
  // Sent before the others are answered, to save a turn; acted upon only when they were.
  kj::Promise<capnp::Response<schema::Worker::CreateResults>> created = request.send();
  auto all = attached.then([created = kj::mv(created)]() mutable { return kj::mv(created); })
                 .then(rpc::guarded([this](capnp::Response<schema::Worker::CreateResults>&& response) {
                   takeVm(response);
                   requireWanted("before its guest ran");  // by one that was told of it
                   return vm_.startRequest().send();
                 }))
                 .then(rpc::guarded([](auto&& started) { rpc::throwIfError(started); }));
  return rpc::withDeadline(io_.provider->getTimer(), createTimeout_, "creating the VM in the worker", kj::mv(all))
      .then([this]() {
        life_.mark("guest-runs");
        if (!life_.isEnding()) {
          life_.setState(VmState::RUNNING);
        }
      });
}

void Vm::takeVm(schema::Worker::CreateResults::Reader created) {
  // The answer may have been under way: the worker is being killed, and how it is confined then tells nothing.
  requireWanted("while its worker created it");
  try {
    rpc::throwIfError(created);
  } catch (const Error& error) {
    throw nameFile(error, originalConfig_);
  }
  if (!created.hasVm()) {
    throw Error(ErrorCode::kProtocol, "the worker created no VM and gave no reason");
  }
  vm_ = created.getVm();
  const auto offered = created.getAbilities();
  abilities_.take(worker_->process(), offered);
  if (vsock_ && !offered.hasVsock()) {
    throw Error(ErrorCode::kProtocol, "the worker made no vsock device, and did not say so");
  }
  life_.mark("vm-created");
  worker_->verify();
  life_.mark("verified-again");
  if (vsock_) {
    vsock_->connectTo(offered.getVsock());
  }
  life_.setState(VmState::CREATED);
}

Fd Vm::connectVsock(std::uint32_t port) {
  abilities_.requireAnswering("connect to the guest of");
  if (!vsock_) {
    throw Error(ErrorCode::kFailedPrecondition, "the VM has no vsock device",
                R"(give it one in its configuration: "vsock": {})");
  }
  return vsock_->connect(port);
}

kj::Promise<void> Vm::stop(EndKind kind, std::string reason, int signal) {
  isEndForced_ = true;
  if (endForced_) {
    endForced_->fulfill();
  }
  beginEnd({kind, EndCause::UNKNOWN, std::move(reason), std::nullopt}, signal);
  return onEnded();
}

}  // namespace vmmhost::vm
