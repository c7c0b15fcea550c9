// What a VM makes of its worker's abilities: words for errors, what is not to reach a worker, and what an answer
// changes.
#include <algorithm>

#include "host/vm/vm.h"
#include "ipc/rpc/connection.h"

namespace vmmhost::vm {
namespace {

// The result's error, if it has one, becomes the promise's.
template <typename Request>
kj::Promise<void> carriedOut(Request request) {
  return request.send().then(rpc::guarded([](auto&& response) { rpc::throwIfError(response); }));
}

}  // namespace

void Vm::nameAbilities() {
  using schema::BalloonControl;
  using schema::ConsoleSize;
  using schema::Pausable;
  using schema::PowerButton;
  using schema::Resettable;
  abilities_.name<Pausable>("cannot pause this VM");
  abilities_.rule<Pausable, Pausable::PauseParams, Pausable::PauseResults>(
      "pause", {"pause", "pausing the VM", {}, [this](auto, auto) { setState(schema::VmState::PAUSED); }});
  abilities_.rule<Pausable, Pausable::ResumeParams, Pausable::ResumeResults>(
      "resume", {"resume", "resuming the VM", {}, [this](auto, auto) { setState(schema::VmState::RUNNING); }});
  abilities_.name<PowerButton>("has no power button for this VM", "`vmmhost stop` ends it without asking the guest");
  abilities_.rule<PowerButton, PowerButton::PressParams, PowerButton::PressResults>(
      "press", {"shutdown", "pressing the power button", {}, [this](auto, auto) {
                  log_.write(Severity::kInfo, "vm", "power button pressed");
                }});
  abilities_.name<Resettable>("cannot reset this VM");
  abilities_.rule<Resettable, Resettable::ResetParams, Resettable::ResetResults>("reset",
                                                                                 {"reset", "resetting the VM", {}, {}});
  abilities_.name<BalloonControl>("has no balloon for this VM",
                                  "a VM whose configuration has a `balloon` may have one");
  abilities_.rule<BalloonControl, BalloonControl::SetTargetParams, BalloonControl::SetTargetResults>(
      "setTarget", {"balloon", "asking about the balloon",
                    [this](auto params) {
                      const std::uint64_t memory = originalConfig_.getMemory().getSize();
                      if (params.getBytes() > memory) {
                        throw Error(ErrorCode::kInvalidArgument,
                                    "a balloon of " + std::to_string(params.getBytes()) +
                                        " bytes is more than the VM's memory of " + std::to_string(memory),
                                    "the size is what the guest gives up, not what it keeps");
                      }
                    },
                    [this](auto params, auto) { balloonTarget_ = params.getBytes(); }});
  abilities_.rule<BalloonControl, BalloonControl::ActualParams, BalloonControl::ActualResults>(
      "actual", {"balloon", "asking about the balloon", {}, [this](auto, auto results) {
                   // What a worker tells is not more than there is.
                   results.setBytes(std::min(results.getBytes(), originalConfig_.getMemory().getSize()));
                 }});
  abilities_.name<ConsoleSize>("tells this VM's guest nothing of terminals");
  abilities_.rule<ConsoleSize, ConsoleSize::SetParams, ConsoleSize::SetResults>(
      "set",
      {"resize a console", "resizing a console", [this](auto params) { requireConsole(params.getConsole()); }, {}});
}

kj::Promise<void> Vm::pause() {
  return carriedOut(abilities_.get<schema::Pausable>("pause").pauseRequest());
}

kj::Promise<void> Vm::resume() {
  return carriedOut(abilities_.get<schema::Pausable>("resume").resumeRequest());
}

kj::Promise<void> Vm::shutdown() {
  return carriedOut(abilities_.get<schema::PowerButton>("shutdown").pressRequest());
}

kj::Promise<void> Vm::reset() {
  return carriedOut(abilities_.get<schema::Resettable>("reset").resetRequest());
}

kj::Promise<void> Vm::setBalloon(std::uint64_t target) {
  auto request = abilities_.get<schema::BalloonControl>("balloon").setTargetRequest();
  request.setBytes(target);
  return carriedOut(kj::mv(request));
}

kj::Promise<Vm::BalloonState> Vm::balloon() {
  return abilities_.get<schema::BalloonControl>("balloon").actualRequest().send().then(
      rpc::guarded([this](capnp::Response<schema::BalloonControl::ActualResults>&& response) -> BalloonState {
        rpc::throwIfError(response);
        return {balloonTarget_, response.getBytes()};
      }));
}

kj::Promise<void> Vm::resizeConsole(std::uint32_t port, std::uint16_t columns, std::uint16_t rows) {
  requireConsole(port);
  auto request = abilities_.get<schema::ConsoleSize>("resize a console").setRequest();
  request.setConsole(port);
  request.setColumns(columns);
  request.setRows(rows);
  return carriedOut(kj::mv(request));
}

Fd Vm::connectVsock(std::uint32_t port) {
  requireAnswering("connect to the guest of");
  if (!vsock_) {
    throw Error(ErrorCode::kFailedPrecondition, "the VM has no vsock device",
                R"(give it one in its configuration: "vsock": {})");
  }
  return vsock_->connect(port);
}

}  // namespace vmmhost::vm
