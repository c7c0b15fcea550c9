#include "host/supervisor/supervisor.h"

#include <signal.h>
#include <stdlib.h>

#include <algorithm>

#include "host/base/build_info.h"
#include "host/base/clock.h"
#include "host/base/paths.h"
#include "host/config/json.h"
#include "host/plugin/places.h"

namespace vmmhost::supervisor {
namespace {

// For a command that is slow to ask, as on a machine with much to do, or one that was suspended.
constexpr auto kLinger = 30 * kj::SECONDS;
constexpr std::chrono::milliseconds kMeasurement{50};
constexpr std::chrono::milliseconds kPatientMeasurement{5000};

const char* signalText(int signal) {
  return signal == SIGINT ? "SIGINT" : signal == SIGHUP ? "SIGHUP" : "SIGTERM";
}

}  // namespace

Supervisor::Supervisor(kj::AsyncIoContext& io, schema::LaunchRequest::Reader request, Fd starter)
    : io_(io),
      meter_(io.unixEventPort),
      request_(request),
      // Until there is a folder for it, and where a developer asked for it, the log is on standard error.
      log_(std::make_unique<Log>(nullptr, ::secure_getenv("VMMHOST_DEBUG") != nullptr)),
      detached_(request.getDetached()) {
  auto vmMade = kj::newPromiseAndFulfiller<void>();
  vmMadeFulfiller_ = kj::mv(vmMade.fulfiller);
  vmMade_ = vmMade.promise.fork();
  auto starterLeft = kj::newPromiseAndFulfiller<void>();
  starterLeftFulfiller_ = kj::mv(starterLeft.fulfiller);
  starterLeft_ = starterLeft.promise.fork();
  auto started = kj::newPromiseAndFulfiller<void>();
  startedFulfiller_ = kj::mv(started.fulfiller);
  started_ = started.promise.fork();
  auto finished = kj::newPromiseAndFulfiller<void>();
  finishedFulfiller_ = kj::mv(finished.fulfiller);
  finished_ = finished.promise.fork();
  control_ = std::make_unique<control::ControlServer>(io, *this, *log_);
  control_->serveStarter(std::move(starter));
}

Supervisor::~Supervisor() noexcept = default;

void Supervisor::prepare() {
  const auto mark = [this](const char* phase) { early_.emplace_back(phase, monotonicNanoseconds()); };
  if (request_.getClientStartNs() != 0) {
    early_.emplace_back("client-start", request_.getClientStartNs());
  }
  mark("supervisor-start");
  auto config = std::make_unique<capnp::MallocMessageBuilder>();
  config->setRoot(request_.getConfig());
  launch::Options options{request_.getBackend().cStr(),
                          request_.getWorkingDirectory().cStr(),
                          std::chrono::milliseconds(request_.getTimeoutMs()),
                          {},
                          request_.getExplainJail()};
  for (const auto part : request_.getWithout()) {
    options.without.emplace_back(part.cStr());
  }
  launcher_.emplace(std::move(options), std::move(config), "vm");
  name_ = launcher_->config().getName().cStr();

  directories_ =
      runtime::Directories::open({request_.getRuntimeDirectory().cStr(), request_.getStateDirectory().cStr()});
  reservation_ = runtime::Reservation::take(*directories_, runtime::vmName(name_));
  keepRecord({});  // what comes next may be our end, and whoever clears away has to know what is wanted
  stateBounds_ = runtime::stateBounds(launcher_->config().getConsoles().size());
  runtime::requireStateRoom(*directories_, reservation_->name(), *stateBounds_);
  log_->setFile(std::make_unique<RotatingFile>(reservation_->stateFd(), "vmmhost.log", runtime::kLogFileBytes));
  mark("name-reserved");
}

std::string Supervisor::backend() const {
  return launcher_ ? launcher_->backend() : request_.getBackend().cStr();
}

kj::Promise<void> Supervisor::chooseBackend() {
  const InstallPaths installation = findInstallation();
  auto registry = launch::makeRegistry(installation, request_.getPluginPath().cStr(), *log_);
  auto givenUp = kj::newPromiseAndFulfiller<void>();
  choosingGivenUp_ = kj::mv(givenUp.fulfiller);
  return launcher_->choose(io_.unixEventPort, std::move(registry))
      .then([this]() {
        choosingGivenUp_ = nullptr;
        early_.emplace_back("backend-chosen", monotonicNanoseconds());
      })
      .exclusiveJoin(kj::mv(givenUp.promise));
}

void Supervisor::keepRecord(const std::vector<std::string>& cgroups) {
  runtime::Record record;
  record.backend = backend();
  record.supervisorPid = ::getpid();
  record.cgroups = cgroups;
  record.startedUnixMs = unixMilliseconds();
  record.removeOnEnd = request_.getRemoveOnEnd();
  record.consoles = std::max(1U, request_.getConfig().getConsoles().size());
  reservation_->writeRecord(record);
}

void Supervisor::makeVm() {
  launch::Launch launch = launcher_->make([this]() { early_.emplace_back("plugin-loaded", monotonicNanoseconds()); });
  lease_ = std::move(launch.lease);
  vm::VmSpec& spec = launch.spec;
  if (request_.getMeasureMemory()) {
    spec.measureMemory = request_.getAwaitMeasurement() ? kPatientMeasurement : kMeasurement;
  }
  spec.groupName = reservation_->name().folder() + "-" + std::to_string(::getpid());
  spec.keepConsole = true;
  spec.consoleFile = [this](std::uint32_t port) {
    return std::make_unique<RotatingFile>(reservation_->stateFd(), runtime::consoleLogName(port),
                                          runtime::kConsoleFileBytes);
  };
  spec.vsockFolder = duplicate(reservation_->runtimeFd());
  spec.vsockFolderPath = directories_->paths().runtime + '/' + reservation_->name().folder();
  spec.onCgroups = [this](const std::vector<std::string>& cgroups) { keepRecord(cgroups); };
  vm_ = std::make_unique<vm::Vm>(io_, std::move(spec), *log_, meter_);
  for (auto& [phase, ns] : early_) {
    vm_->life().addTiming(phase, ns);
  }
}

kj::Promise<void> Supervisor::run() {
  return kj::evalNow(rpc::guarded([this]() -> kj::Promise<void> {
           prepare();
           return chooseBackend().then(rpc::guarded([this]() {
             makeVm();
             if (endWanted_) {
               vm_->stop(endWanted_->kind, endWanted_->reason, endWanted_->signal).detach([](kj::Exception&&) {});
             }
             control_->listen(reservation_->listenControl());
             vmMadeFulfiller_->fulfill();
             return vm_->start();
           }));
         }))
      .then([this]() { startedFulfiller_->fulfill(); },
            [this](kj::Exception&& exception) {
              if (!vm_) {
                outcome_.error = rpc::fromKj(exception);
                outcome_.detail = outcome_.error->message();
                if (endWanted_) {
                  outcome_.kind = endWanted_->kind;
                  outcome_.detail = endWanted_->reason;
                }
                outcome_.exitCode = vm::exitCodeFor(outcome_.kind, schema::EndCause::UNKNOWN, outcome_.error,
                                                    endWanted_ ? endWanted_->signal : 0);
              }
              startFailed_ = true;
              vmMadeFulfiller_->reject(kj::cp(exception));
              startedFulfiller_->reject(kj::mv(exception));
            })
      .then([this]() -> kj::Promise<void> { return vm_ ? vm_->onEnded() : kj::Promise<void>(kj::READY_NOW); })
      .then([this]() {
        finish();
        finishedFulfiller_->fulfill();
        // The command that started it may still ask how it went; its going is our leave to go.
        return starterLeft_.addBranch().exclusiveJoin(io_.provider->getTimer().afterDelay(kLinger));
      })
      // A timer fires after everything that is ready was done: the answers to others who wait are in their sockets.
      .then([this]() { return io_.provider->getTimer().afterDelay(0 * kj::NANOSECONDS); });
}

void Supervisor::finish() {
  if (vm_) {
    outcome_ = vm_->outcome();
  }
  if (!reservation_) {
    return;
  }
  // A VM that never ran leaves nothing to look at.
  const bool remove = request_.getRemoveOnEnd() || startFailed_;
  try {
    if (!remove) {
      reservation_->writeState("exit.json", exitJson());
    }
  } catch (const Error& error) {
    log_->write(Severity::kError, "supervisor", error.message());
  }
  lease_.reset();
  reservation_->release(remove);
}

std::string Supervisor::exitJson() {
  capnp::MallocMessageBuilder message;
  auto info = message.initRoot<schema::VmInfo>();
  describe(info, 0);
  const auto write = [&info]() {
    return config::writeJson(capnp::DynamicStruct::Reader(info.asReader()), {true, false});
  };
  std::string json = write();
  if (json.size() > runtime::kExitRecordBytes) {
    info.disownConfig();  // the one part that a user makes as large as this
    json = write();
  }
  if (json.size() > runtime::kExitRecordBytes) {  // and this is what a worker could have to do with
    info.disownTimings();
    if (info.hasOutcome()) {
      info.getOutcome().disownTimings();
      info.getOutcome().disownLastLog();
    }
    json = write();
  }
  return json;
}

kj::Promise<std::uint64_t> Supervisor::measureMemory(std::chrono::milliseconds within) {
  return vm_ ? vm_->measureMemory(within) : kj::Promise<std::uint64_t>(std::uint64_t{0});
}

void Supervisor::describe(schema::VmInfo::Builder out, std::uint64_t workerPrivateBytes) {
  if (vm_) {
    vm_->describe(out, workerPrivateBytes);
  } else {
    out.setSupervisorPid(::getpid());
    out.setSupervisorBuild(kj::StringPtr(kBuild.data(), kBuild.size()));
    out.setBackend(backend());
    if (!name_.empty()) {
      out.setName(name_);
    }
  }
  out.setDetached(detached_);
  out.setRemoveOnEnd(request_.getRemoveOnEnd());
  if (stateBounds_) {
    auto bounds = out.initStateBounds();
    bounds.setConsoleLogs(stateBounds_->consoleLogs);
    bounds.setVmLog(stateBounds_->vmLog);
    bounds.setExitRecord(stateBounds_->exitRecord);
    bounds.setVm(stateBounds_->vm);
    bounds.setUser(stateBounds_->user);
  }
}

kj::Promise<void> Supervisor::stop(schema::EndKind kind, std::string reason, int signal) {
  if (vm_) {
    return vm_->stop(kind, std::move(reason), signal);
  }
  if (!endWanted_) {
    endWanted_ = {kind, signal, reason};
  }
  if (choosingGivenUp_) {
    choosingGivenUp_->reject(rpc::toKj(Error(ErrorCode::kCancelled, std::move(reason))));
  }
  return onFinished();
}

void Supervisor::signalled(int signal) {
  stop(schema::EndKind::SIGNALLED, signalText(signal), signal).detach([](kj::Exception&&) {});
}

void Supervisor::starterDetached() {
  detached_ = true;
}

void Supervisor::starterGone() {
  starterLeftFulfiller_->fulfill();
  if (!detached_) {
    stop(schema::EndKind::CLIENT_GONE, "the command that started it is gone", 0).detach([](kj::Exception&&) {});
  }
}

}  // namespace vmmhost::supervisor
