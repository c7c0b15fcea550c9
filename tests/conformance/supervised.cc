#include "tests/conformance/supervised.h"

#include <capnp/dynamic.h>
#include <capnp/message.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/base/paths.h"
#include "host/config/json.h"

namespace vmmhost::conformance {

namespace {

template <typename Enum>
std::string nameOf(Enum value) {
  const capnp::DynamicEnum dynamic(capnp::Schema::from<Enum>(), static_cast<std::uint16_t>(value));
  KJ_IF_MAYBE (enumerant, dynamic.getEnumerant()) {
    return enumerant->getProto().getName().cStr();
  }
  return "unknown";
}

}  // namespace

Ended readOutcome(schema::Outcome::Reader outcome) {
  return {nameOf(outcome.getKind()), nameOf(outcome.getCause()), outcome.getDetail().cStr(), outcome.getExitCode(),
          outcome.hasError() ? outcome.getError().getMessage().cStr() : ""};
}

std::string stateName(schema::VmState state) {
  return nameOf(state);
}

SupervisedVm::SupervisedVm(Context& context, const ConfigText& config, LaunchOptions options)
    : context_(context), options_(std::move(options)) {
  capnp::MallocMessageBuilder message;
  auto request = message.initRoot<schema::LaunchRequest>();
  auto vm = request.initConfig();
  config::parseJson("configuration", context.config(config), vm);
  vm.setName(options_.name);
  request.setBackend(context.backend().name);
  request.setWorkingDirectory(context.folder());
  request.setTimeoutMs(static_cast<std::uint64_t>(options_.timeout.count()));
  request.setRemoveOnEnd(options_.removeOnEnd);
  request.setDetached(options_.detached);
  auto without = request.initWithout(static_cast<unsigned>(options_.without.size()));
  for (unsigned index = 0; index < without.size(); ++index) {
    without.set(index, options_.without[index]);
  }
  request.setClientStartNs(1);
  request.setRuntimeDirectory(context.runtimeFolder());
  request.setStateDirectory(context.stateFolder());
  request.setPluginPath(context.pluginPath());
  supervisor_ = client::launchSupervisor(findInstallation().supervisor, request.asReader());
  context.addHostPid(supervisor_.pid);
  starter_ = std::make_unique<client::ControlClient>(context.io(), std::move(supervisor_.control), options_.name);
}

SupervisedVm::~SupervisedVm() {
  starter_.reset();
  if (!supervisor_.process) {
    return;
  }
  // One that has no lifeline any more hears of it in this way.
  ::syscall(SYS_pidfd_send_signal, supervisor_.process.get(), SIGTERM, nullptr, 0);
  client::reapSupervisor(supervisor_, static_cast<int>(kPatience.count()));
}

client::ControlClient& SupervisedVm::starter() {
  check(starter_ != nullptr, "the starter has gone");
  return *starter_;
}

void SupervisedVm::awaitRunning() {
  context_.await(starter().hello(kPatience), "the supervisor's greeting");
  context_.await(starter().started().ignoreResult(), "starting the VM");
}

std::unique_ptr<client::ControlClient> SupervisedVm::connect() {
  const auto folders = directories();
  std::unique_ptr<client::ControlClient> client;
  waitUntil(
      [&]() {
        try {
          client = std::make_unique<client::ControlClient>(
              context_.io(), runtime::connectControl(folders, runtime::vmName(options_.name)), options_.name);
          return true;
        } catch (const Error& error) {
          if (!error.retryable() && error.code() != ErrorCode::kNotFound) {
            throw;
          }
          return false;
        }
      },
      "the control socket of " + options_.name + " is there");
  context_.await(client->hello(kPatience), "the supervisor's greeting");
  return client;
}

Ended SupervisedVm::wait() {
  return readOutcome(context_.await(starter().wait(), "the VM's end").getOutcome());
}

Ended SupervisedVm::stop(const std::string& reason) {
  return readOutcome(
      context_.await(starter().stop(schema::EndKind::STOPPED, reason, kPatience), "stopping the VM").getOutcome());
}

std::string SupervisedVm::state() {
  return stateName(context_.await(starter().info(kPatience), "asking for the state").getInfo().getState());
}

std::string SupervisedVm::reap() {
  const std::string how = client::reapSupervisor(supervisor_, static_cast<int>(kPatience.count()));
  check(!how.empty(), "the supervisor did not end");
  return how;
}

void SupervisedVm::watch(client::ControlClient& client, Changes& changes) {
  context_.await(client.watch([&changes](schema::VmState state, std::int64_t,
                                         std::string_view detail) { changes.emplace_back(nameOf(state), detail); },
                              kPatience),
                 "beginning to watch");
}

runtime::Directories SupervisedVm::directories() const {
  return runtime::Directories::open({context_.runtimeFolder(), context_.stateFolder()});
}

}  // namespace vmmhost::conformance
