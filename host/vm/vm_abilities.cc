#include "host/vm/vm_abilities.h"

#include <algorithm>

#include "ipc/rpc/connection.h"

namespace vmmhost::vm {
namespace {

// The result's error, if it has one, becomes the promise's.
template <typename Request>
kj::Promise<void> carriedOut(Request request) {
  return request.send().then(rpc::guarded([](auto&& response) { rpc::throwIfError(response); }));
}

}  // namespace

VmAbilities::VmAbilities(Parts parts) : parts_(parts) {
  namePower();
  nameBalloon();
  nameConsoleSize();
}

void VmAbilities::namePower() {
  using schema::Pausable;
  using schema::PowerButton;
  using schema::Resettable;
  abilities_.name<Pausable>("cannot pause this VM");
  abilities_.rule<Pausable, Pausable::PauseParams, Pausable::PauseResults>(
      "pause", {"pause", "pausing the VM", {}, [this](auto, auto) { parts_.life.setState(schema::VmState::PAUSED); }});
  abilities_.rule<Pausable, Pausable::ResumeParams, Pausable::ResumeResults>(
      "resume",
      {"resume", "resuming the VM", {}, [this](auto, auto) { parts_.life.setState(schema::VmState::RUNNING); }});
  abilities_.name<PowerButton>("has no power button for this VM", "`vmmhost stop` ends it without asking the guest");
  abilities_.rule<PowerButton, PowerButton::PressParams, PowerButton::PressResults>(
      "press", {"shutdown", "pressing the power button", {}, [this](auto, auto) {
                  parts_.log.write(Severity::kInfo, "vm", "power button pressed");
                }});
  abilities_.name<Resettable>("cannot reset this VM");
  abilities_.rule<Resettable, Resettable::ResetParams, Resettable::ResetResults>("reset",
                                                                                 {"reset", "resetting the VM", {}, {}});
}

void VmAbilities::nameBalloon() {
  using schema::BalloonControl;
  abilities_.name<BalloonControl>("has no balloon for this VM",
                                  "a VM whose configuration has a `balloon` may have one");
  abilities_.rule<BalloonControl, BalloonControl::SetTargetParams, BalloonControl::SetTargetResults>(
      "setTarget", {"balloon", "asking about the balloon",
                    [this](auto params) {
                      const std::uint64_t memory = parts_.config.getMemory().getSize();
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
                   results.setBytes(std::min(results.getBytes(), parts_.config.getMemory().getSize()));
                 }});
}

void VmAbilities::nameConsoleSize() {
  using schema::ConsoleSize;
  abilities_.name<ConsoleSize>("tells this VM's guest nothing of terminals");
  abilities_.rule<ConsoleSize, ConsoleSize::SetParams, ConsoleSize::SetResults>(
      "set", {"resize a console",
              "resizing a console",
              [this](auto params) { parts_.consoles.require(params.getConsole()); },
              {}});
}

void VmAbilities::take(jailed::JailedProcess& worker, schema::Abilities::Reader offered) {
  worker_ = &worker;
  abilities_.take(offered);
  balloonTarget_ = parts_.config.getBalloon().getTargetSize();
}

void VmAbilities::requireAnswering(const std::string& verb) const {
  const schema::VmState state = parts_.life.state();
  if (worker_ == nullptr || isEnding() || (state != schema::VmState::RUNNING && state != schema::VmState::PAUSED)) {
    throw Error(ErrorCode::kFailedPrecondition, "cannot " + verb + " a VM that is " + parts_.life.stateName());
  }
  if (worker_->isStuck()) {
    throw Error(ErrorCode::kUnavailable, verb + ": the worker has not answered those before",
                "`vmmhost stop` ends it without asking", true);
  }
}

kj::Promise<void> VmAbilities::pause() {
  return carriedOut(abilities_.get<schema::Pausable>("pause").pauseRequest());
}

kj::Promise<void> VmAbilities::resume() {
  return carriedOut(abilities_.get<schema::Pausable>("resume").resumeRequest());
}

kj::Promise<void> VmAbilities::shutdown() {
  return carriedOut(abilities_.get<schema::PowerButton>("shutdown").pressRequest());
}

kj::Promise<void> VmAbilities::reset() {
  return carriedOut(abilities_.get<schema::Resettable>("reset").resetRequest());
}

kj::Promise<void> VmAbilities::setBalloon(std::uint64_t target) {
  auto request = abilities_.get<schema::BalloonControl>("balloon").setTargetRequest();
  request.setBytes(target);
  return carriedOut(kj::mv(request));
}

kj::Promise<VmAbilities::Balloon> VmAbilities::balloon() {
  return abilities_.get<schema::BalloonControl>("balloon").actualRequest().send().then(
      rpc::guarded([this](capnp::Response<schema::BalloonControl::ActualResults>&& response) -> Balloon {
        rpc::throwIfError(response);
        return {balloonTarget_, response.getBytes()};
      }));
}

kj::Promise<void> VmAbilities::resizeConsole(std::uint32_t port, std::uint16_t columns, std::uint16_t rows) {
  parts_.consoles.require(port);
  auto request = abilities_.get<schema::ConsoleSize>("resize a console").setRequest();
  request.setConsole(port);
  request.setColumns(columns);
  request.setRows(rows);
  return carriedOut(kj::mv(request));
}

}  // namespace vmmhost::vm
