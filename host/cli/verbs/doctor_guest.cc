// The check of vmmhost doctor that is the whole: a guest in a jail, as `run` would have it.
#include <capnp/message.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "host/base/environment.h"
#include "host/base/paths.h"
#include "host/cli/base/output.h"
#include "host/cli/base/vm_access.h"
#include "host/cli/verbs/doctor.h"
#include "host/client/control_client.h"
#include "host/client/launch.h"
#include "host/plugin/registry.h"
#include "host/runtime/directories.h"
#include "ipc/jail/spawn/limits.h"
#include "ipc/rpc/connection.h"
#include "vmmhost/plugin.h"

namespace vmmhost::cli {

namespace {

using client::ControlClient;
using std::chrono::milliseconds;

constexpr milliseconds kGuestLimit{20000};
constexpr milliseconds kAnswerLimit{kGuestLimit + milliseconds(10000)};  // the host's own work around the guest
constexpr int kReapLimitMs = 2000;
constexpr std::uint64_t kMemory = std::uint64_t{32} << 20;

// A supervisor that is asked for one guest; neither it nor the VM outlives this.
class GuestRun {
 public:
  GuestRun(const InstallPaths& installation, const std::string& backend, const std::string& kernel)
      : io_(kj::setupAsyncIo()), name_("doctor-" + backend + '-' + std::to_string(::getpid())) {
    capnp::MallocMessageBuilder message;
    auto request = message.initRoot<schema::LaunchRequest>();
    auto config = request.initConfig();
    config.initBoot().initKernel().setPath(kernel);
    config.initMemory().setSize(kMemory);
    config.setName(name_);
    request.setBackend(backend);
    request.setWorkingDirectory("/");
    request.setTimeoutMs(static_cast<std::uint64_t>(kGuestLimit.count()));
    request.setRemoveOnEnd(true);
    const auto paths = runtime::Directories::defaultPaths();
    request.setRuntimeDirectory(paths.runtime);
    request.setStateDirectory(paths.state);
    request.setPluginPath(processVariable("VMMHOST_PLUGIN_PATH").value_or(""));
    supervisor_ = client::launchSupervisor(installation.supervisor, request.asReader());
    client_ = std::make_unique<ControlClient>(io_, std::move(supervisor_.control), name_);
  }
  ~GuestRun() {
    client_.reset();  // its lifeline
    if (client::reapSupervisor(supervisor_, kReapLimitMs).empty()) {
      client::killSupervisor(supervisor_);
      client::reapSupervisor(supervisor_, kReapLimitMs);
    }
    clearAway(name_);  // it may have died before it could
  }
  GuestRun(const GuestRun&) = delete;
  GuestRun& operator=(const GuestRun&) = delete;

  // What came of it, once it has ended. Throws Error.
  ControlClient::WaitResponse outcome() {
    auto ended = client_->hello().then([this]() { return client_->started().ignoreResult(); }).then([this]() {
      return client_->wait();
    });
    return client::await(io_,
                         rpc::withDeadline(io_.provider->getTimer(), kAnswerLimit, "running a guest", kj::mv(ended)));
  }

 private:
  kj::AsyncIoContext io_;
  const std::string name_;
  client::LaunchedSupervisor supervisor_;
  std::unique_ptr<ControlClient> client_;
};

// Where an error would send its reader to this very command, the checks above it say more.
std::string fixOf(const std::string& hint) {
  return hint.find("vmmhost doctor") == std::string::npos ? hint : "what the checks above say";
}

}  // namespace

Check checkLimits() {
  const auto error = spawn::tooLowForTheHost();
  if (error) {
    return {"limits", Check::Status::kProblem, error->message(), error->hint()};
  }
  return {"limits", Check::Status::kOk, "of memory and stacks, suffice for vmmhost itself", {}};
}

Check checkGuest(const InstallPaths& installation, const plugin::BackendInfo& backend) {
  const std::string name = "guest on " + backend.name;
  const auto& can = backend.capabilities;
  if (std::find(can.begin(), can.end(), VMMHOST_CAP_BOOT_PVH) == can.end()) {
    return {name, Check::Status::kWarning, "not tried: this backend boots nothing as small as the guest there is", {}};
  }
  const std::string kernel = installation.conformanceGuests + "/poweroff.elf";
  if (::access(kernel.c_str(), R_OK) != 0) {
    return {name, Check::Status::kWarning, "not tried: there is no " + kernel, "install vmmhost with its guests"};
  }
  try {
    const auto begin = std::chrono::steady_clock::now();
    GuestRun run(installation, backend.name, kernel);
    const auto response = run.outcome();
    const auto outcome = response.getOutcome();
    if (outcome.getExitCode() != 0) {
      return {name, Check::Status::kProblem, describeOutcome(outcome),
              "`vmmhost run --backend " + backend.name + " --kernel " + kernel + "` shows more"};
    }
    const auto took = std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - begin);
    return {name,
            Check::Status::kOk,
            "ran in a jail that was verified, and powered off (" + std::to_string(took.count()) + " ms)",
            {}};
  } catch (const Error& error) {
    return {name, Check::Status::kProblem, error.message(), fixOf(error.hint())};
  }
}

}  // namespace vmmhost::cli
