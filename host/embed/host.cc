// The public interface on top of vm::Vm: a private thread with the event loop, and futures across to it.
#include "vmmhost/host.h"

#include <fcntl.h>
#include <signal.h>

#include <atomic>
#include <cerrno>
#include <optional>
#include <system_error>
#include <thread>

#include "host/base/paths.h"
#include "host/config/json.h"
#include "host/launch/launcher.h"
#include "host/plugin/places.h"
#include "host/plugin/registry.h"
#include "host/runtime/directories.h"
#include "host/runtime/owned_groups.h"
#include "host/vm/memory_meter.h"
#include "host/vm/vm.h"
#include "vmmhost/mailbox.h"

namespace vmmhost {
namespace {

constexpr bool isSame(schema::VmState wire, State state) {
  return static_cast<int>(wire) == static_cast<int>(state);
}
static_assert(isSame(schema::VmState::PREPARING, State::kPreparing));
static_assert(isSame(schema::VmState::CREATED, State::kCreated));
static_assert(isSame(schema::VmState::RUNNING, State::kRunning));
static_assert(isSame(schema::VmState::PAUSED, State::kPaused));
static_assert(isSame(schema::VmState::STOPPING, State::kStopping));
static_assert(isSame(schema::VmState::ENDED, State::kEnded));

State toPublic(schema::VmState state) {
  return static_cast<State>(state);
}

template <typename Enum>
std::string enumName(Enum value) {
  const capnp::DynamicEnum dynamic(capnp::Schema::from<Enum>(), static_cast<std::uint16_t>(value));
  KJ_IF_MAYBE (enumerant, dynamic.getEnumerant()) {
    return enumerant->getProto().getName().cStr();
  }
  return "unknown";
}

Ending toPublic(const vm::Outcome& outcome) {
  return {enumName(outcome.kind), enumName(outcome.cause), outcome.detail, outcome.exitCode};
}

void blockSignals(sigset_t& before) {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
}

}  // namespace

class HostThread : public std::enable_shared_from_this<HostThread> {
 public:
  explicit HostThread(HostOptions options)
      : options_(std::move(options)), installation_(findInstallation(options_.installation)) {
    std::promise<void> ready;
    auto isReady = ready.get_future();
    sigset_t before;
    blockSignals(before);
    int error = 0;
    try {
      thread_ = std::thread([this, &ready]() { loop(ready); });
    } catch (const std::system_error& failure) {
      error = failure.code().value();
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (error != 0) {
      throw systemError("starting the host's thread", error);
    }
    try {
      isReady.get();
    } catch (...) {
      thread_.join();
      throw;
    }
  }

  ~HostThread() {
    sender_->post([this]() { leave_->fulfill(); });
    thread_.join();
  }

  // For the loop's thread, which the log is for.
  std::shared_ptr<plugin::Registry> makeRegistry() const {
    return launch::makeRegistry(installation_, options_.pluginPath, *log_);
  }
  std::vector<plugin::BackendInfo> probe(bool measure) const {
    return plugin::Registry(plugin::registryOptions(installation_, options_.pluginPath, ::geteuid() == 0))
        .probe(measure);
  }

  // Runs on the loop's thread; what it returns or throws goes into the future.
  template <typename T>
  std::future<T> call(std::function<kj::Promise<T>()> function) {
    auto promise = std::make_shared<std::promise<T>>();
    auto future = promise->get_future();
    sender_->post([this, promise, function = std::move(function)]() {
      auto failed = [promise](kj::Exception&& exception) {
        promise->set_exception(std::make_exception_ptr(rpc::fromKj(exception)));
      };
      if constexpr (std::is_void_v<T>) {
        tasks_->add(kj::evalNow(rpc::guarded(function)).then([promise]() { promise->set_value(); }, kj::mv(failed)));
      } else {
        tasks_->add(kj::evalNow(rpc::guarded(function))
                        .then([promise](T&& value) { promise->set_value(std::move(value)); }, kj::mv(failed)));
      }
    });
    return future;
  }

  bool isOwnThread() const { return std::this_thread::get_id() == thread_.get_id(); }
  kj::AsyncIoContext& io() { return *io_; }
  Log& log() { return *log_; }
  vm::MemoryMeter& meter() { return *meter_; }
  // A file for the control groups of one VM, for whoever clears away after this program if it is killed. VMs run
  // without as well: nothing there, or what warnOfGroups() has told.
  std::optional<runtime::OwnedGroups> ownGroups() {
    try {
      return runtimeFolder_ ? std::optional(runtime::OwnedGroups::take(runtimeFolder_.get())) : std::nullopt;
    } catch (const Error& error) {
      warnOfGroups(error);
      return std::nullopt;
    }
  }
  void warnOfGroups(const Error& error) {
    log_->write(Severity::kWarning, "host",
                "control groups are left behind if this program is killed: " + error.message());
  }

 private:
  class Errors final : public kj::TaskSet::ErrorHandler {
    void taskFailed(kj::Exception&&) override {}  // each task puts its failure into its future
  };

  void loop(std::promise<void>& ready) {
    try {
      auto io = kj::setupAsyncIo();
      io_ = &io;
      Mailbox mailbox(io.unixEventPort);
      sender_ = mailbox.sender();
      vm::MemoryMeter meter(io.unixEventPort);
      meter_ = &meter;
      Errors errors;
      kj::TaskSet tasks(errors);
      tasks_ = &tasks;
      auto leave = kj::newPromiseAndFulfiller<void>();
      leave_ = kj::mv(leave.fulfiller);
      log_ = std::make_unique<Log>(nullptr, false);
      if (!options_.logFile.empty()) {
        const std::size_t slash = options_.logFile.rfind('/');
        const std::string folder = slash == std::string::npos ? "." : options_.logFile.substr(0, slash + 1);
        const Fd directory(::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
        if (!directory) {
          throw systemError(folder, errno);
        }
        log_->setFile(std::make_unique<RotatingFile>(
            directory.get(), options_.logFile.substr(slash == std::string::npos ? 0 : slash + 1), 1u << 20));
      }
      openRuntimeFolder();
      ready.set_value();
      leave.promise.wait(io.waitScope);
    } catch (const kj::Exception& exception) {
      ready.set_exception(std::make_exception_ptr(rpc::fromKj(exception)));
    } catch (const Error&) {
      ready.set_exception(std::current_exception());
    }
  }

  void openRuntimeFolder() {
    try {
      runtimeFolder_ = runtime::Directories::openRuntime(
          options_.runtimeFolder.empty() ? runtime::Directories::defaultPaths().runtime : options_.runtimeFolder);
    } catch (const Error& error) {
      warnOfGroups(error);
    }
  }

  HostOptions options_;
  InstallPaths installation_;
  Fd runtimeFolder_;
  std::unique_ptr<Log> log_;
  kj::AsyncIoContext* io_ = nullptr;
  kj::TaskSet* tasks_ = nullptr;
  vm::MemoryMeter* meter_ = nullptr;
  kj::Own<kj::PromiseFulfiller<void>> leave_;
  std::optional<Mailbox::Sender> sender_;
  std::thread thread_;
};

namespace {

// What lives on the loop's thread.
struct Running {
  std::optional<runtime::UidLease> lease;
  std::optional<runtime::OwnedGroups> groups;  // nothing where there is no place for them; both outlive the VM
  std::unique_ptr<vm::Vm> vm;
  std::unique_ptr<vm::Life::Watch> watch;
  std::atomic<State> state{State::kPreparing};
  unsigned calls = 0;  // not answered yet
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> allAnswered;
};

// A call goes on in the VM until it is answered, though the handle may be destroyed meanwhile.
template <typename T>
kj::Promise<T> counted(const std::shared_ptr<Running>& running, kj::Promise<T> call) {
  ++running->calls;
  return call.attach(kj::defer([running]() {
    if (--running->calls == 0) {
      KJ_IF_MAYBE (waiter, running->allAnswered) {
        (*waiter)->fulfill();
      }
    }
  }));
}

kj::Promise<void> whenAllAnswered(Running& running) {
  if (running.calls == 0) {
    return kj::READY_NOW;
  }
  auto pair = kj::newPromiseAndFulfiller<void>();
  running.allAnswered = kj::mv(pair.fulfiller);
  return kj::mv(pair.promise);
}

class OwnedVmImpl final : public OwnedVm {
 public:
  OwnedVmImpl(std::shared_ptr<HostThread> host, std::shared_ptr<Running> running)
      : host_(std::move(host)), running_(std::move(running)) {}
  ~OwnedVmImpl() override {
    auto gone = host_->call<void>([running = running_]() {
      return running->vm->stop(schema::EndKind::STOPPED, "its handle was destroyed")
          .then([running]() { return whenAllAnswered(*running); })
          .then([running]() {
            running->watch.reset();
            running->vm.reset();
          });
    });
    // A handle that nobody ever took out of its future goes on the loop's own thread, which cannot wait for itself.
    if (!host_->isOwnThread()) {
      gone.wait();
    }
  }

  State state() const override { return running_->state; }
  std::future<void> pause() override {
    return host_->call<void>([running = running_]() { return counted(running, running->vm->abilities().pause()); });
  }
  std::future<void> resume() override {
    return host_->call<void>([running = running_]() { return counted(running, running->vm->abilities().resume()); });
  }
  std::future<void> shutdown() override {
    return host_->call<void>([running = running_]() { return counted(running, running->vm->abilities().shutdown()); });
  }
  std::future<void> reset() override {
    return host_->call<void>([running = running_]() { return counted(running, running->vm->abilities().reset()); });
  }
  std::future<Ending> stop() override {
    return host_->call<Ending>([running = running_]() {
      return counted(running, running->vm->stop(schema::EndKind::STOPPED, "stopped by its owner").then([running]() {
        return toPublic(running->vm->outcome());
      }));
    });
  }
  std::future<Ending> wait() override {
    return host_->call<Ending>([running = running_]() {
      return counted(running, running->vm->onEnded().then([running]() { return toPublic(running->vm->outcome()); }));
    });
  }
  std::future<Fd> console(std::uint32_t replayBytes, bool input, std::uint32_t port) override {
    return host_->call<Fd>([=, running = running_]() -> kj::Promise<Fd> {
      return running->vm->consoles().attach(port, replayBytes, input);
    });
  }
  std::future<void> setBalloon(std::uint64_t bytes) override {
    return host_->call<void>(
        [=, running = running_]() { return counted(running, running->vm->abilities().setBalloon(bytes)); });
  }
  std::future<Balloon> balloon() override {
    return host_->call<Balloon>([running = running_]() {
      return counted(running, running->vm->abilities().balloon().then([](vm::VmAbilities::Balloon state) {
        return Balloon{state.target, state.actual};
      }));
    });
  }
  std::future<void> resizeConsole(std::uint32_t port, std::uint16_t columns, std::uint16_t rows) override {
    return host_->call<void>([=, running = running_]() {
      return counted(running, running->vm->abilities().resizeConsole(port, columns, rows));
    });
  }
  std::future<Fd> connectVsock(std::uint32_t port) override {
    return host_->call<Fd>([=, running = running_]() -> kj::Promise<Fd> { return running->vm->connectVsock(port); });
  }
  std::future<std::string> describe() override {
    return host_->call<std::string>([running = running_]() {
      return counted(running, running->vm->measureMemory().then([running](std::uint64_t privateBytes) {
        capnp::MallocMessageBuilder message;
        auto info = message.initRoot<schema::VmInfo>();
        running->vm->describe(info, privateBytes);
        return config::writeJson(capnp::DynamicStruct::Reader(info.asReader()));
      }));
    });
  }

 private:
  std::shared_ptr<HostThread> host_;
  std::shared_ptr<Running> running_;
};

}  // namespace

Host::Host(HostOptions options) : thread_(std::make_shared<HostThread>(std::move(options))) {
}
Host::~Host() = default;

std::vector<BackendSummary> Host::backends(bool measure) {
  std::vector<BackendSummary> summaries;
  for (const plugin::BackendInfo& info : thread_->probe(measure)) {
    summaries.push_back({info.name, info.path, info.usable, info.error ? info.error->message() : info.summary,
                         info.error ? info.error->hint() : info.hint, info.capabilities, info.instructionsPerSecond});
  }
  return summaries;
}

// Everything behind the choice of a backend; on the loop's thread.
static kj::Promise<std::unique_ptr<OwnedVm>> launchOwned(HostThread& host, launch::Launch launch, VmOptions options) {
  auto running = std::make_shared<Running>();
  running->lease = std::move(launch.lease);
  vm::VmSpec& spec = launch.spec;
  spec.groupName =
      launch::madeUpName(spec.config->getRoot<schema::VmConfig>().getName().cStr()) + "-" + std::to_string(::getpid());
  if (auto groups = host.ownGroups()) {
    running->groups.emplace(std::move(*groups));
    spec.onCgroups = [&host, raw = running.get()](const std::vector<std::string>& cgroups) {
      try {
        raw->groups->write(cgroups);
      } catch (const Error& error) {
        host.warnOfGroups(error);
      }
    };
  }
  if (!options.vsockFolder.empty()) {
    spec.vsockFolder = Fd(::open(options.vsockFolder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    spec.vsockFolderPath = options.vsockFolder;
    if (!spec.vsockFolder) {
      throw systemError(options.vsockFolder, errno);
    }
  }
  running->vm = std::make_unique<vm::Vm>(host.io(), std::move(spec), host.log(), host.meter());
  running->watch = running->vm->life().watch(
      [raw = running.get(), onState = options.onState](schema::VmState state, std::int64_t, const std::string& detail) {
        raw->state = toPublic(state);
        if (onState) {
          onState(toPublic(state), detail);
        }
      });
  return running->vm->start().then(rpc::guarded([&host, running]() -> std::unique_ptr<OwnedVm> {
    auto owner = host.weak_from_this().lock();
    if (!owner) {
      throw Error(ErrorCode::kCancelled, "the host was destroyed while the VM was being started");
    }
    return std::make_unique<OwnedVmImpl>(std::move(owner), running);
  }));
}

std::future<std::unique_ptr<OwnedVm>> Host::start(const std::string& configJson, VmOptions options) {
  return thread_->call<std::unique_ptr<OwnedVm>>(
      // Not the owner: a task must not be what ends its own thread.
      [host = thread_.get(), configJson, options]() -> kj::Promise<std::unique_ptr<OwnedVm>> {
        auto config = std::make_unique<capnp::MallocMessageBuilder>();
        config::parseJson("configuration", configJson, config->initRoot<schema::VmConfig>());
        auto launcher = kj::heap<launch::Launcher>(
            launch::Options{options.backend, options.workingDirectory, options.timeout, options.withoutJailParts},
            std::move(config), "owned");
        auto& raw = *launcher;
        return raw.choose(host->io().unixEventPort, host->makeRegistry())
            .then(rpc::guarded([host, options, &raw]() { return launchOwned(*host, raw.make(), options); }))
            .attach(kj::mv(launcher));
      });
}

}  // namespace vmmhost
