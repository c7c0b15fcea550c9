#include "ipc/sdk/by_functions.h"

#include <utility>

#include "ipc/rpc/answer.h"
#include "ipc/rpc/connection.h"

namespace vmmhost::worker {
namespace {

using MachinePtr = std::shared_ptr<Machine>;

class PausableServer final : public schema::Pausable::Server {
 public:
  explicit PausableServer(MachinePtr machine) : machine_(std::move(machine)) {}
  kj::Promise<void> pause(PauseContext context) override {
    return rpc::answer(context, [this]() { return machine_->pause(); });
  }
  kj::Promise<void> resume(ResumeContext context) override {
    return rpc::answer(context, [this]() { return machine_->resume(); });
  }

 private:
  MachinePtr machine_;
};

class PowerButtonServer final : public schema::PowerButton::Server {
 public:
  explicit PowerButtonServer(MachinePtr machine) : machine_(std::move(machine)) {}
  kj::Promise<void> press(PressContext context) override {
    return rpc::answer(context, [this]() { return machine_->pressPowerButton(); });
  }

 private:
  MachinePtr machine_;
};

class BalloonServer final : public schema::BalloonControl::Server {
 public:
  explicit BalloonServer(MachinePtr machine) : machine_(std::move(machine)) {}
  kj::Promise<void> setTarget(SetTargetContext context) override {
    return rpc::answer(
        context, [this, context]() mutable { return machine_->setBalloonTarget(context.getParams().getBytes()); });
  }
  kj::Promise<void> actual(ActualContext context) override {
    return rpc::answer(context, [this, context]() mutable {
      return machine_->balloonActual().then(
          [context](std::uint64_t bytes) mutable { context.getResults().setBytes(bytes); });
    });
  }

 private:
  MachinePtr machine_;
};

class ConsoleSizeServer final : public schema::ConsoleSize::Server {
 public:
  explicit ConsoleSizeServer(MachinePtr machine) : machine_(std::move(machine)) {}
  kj::Promise<void> set(SetContext context) override {
    return rpc::answer(context, [this, context]() mutable {
      const auto params = context.getParams();
      return machine_->resizeConsole(params.getConsole(), params.getColumns(), params.getRows());
    });
  }

 private:
  MachinePtr machine_;
};

class ResettableServer final : public schema::Resettable::Server {
 public:
  explicit ResettableServer(MachinePtr machine) : machine_(std::move(machine)) {}
  kj::Promise<void> reset(ResetContext context) override {
    return rpc::answer(context, [this]() { return machine_->reset(); });
  }

 private:
  MachinePtr machine_;
};

class VsockDeviceServer final : public schema::VsockDevice::Server {
 public:
  explicit VsockDeviceServer(MachinePtr machine) : machine_(std::move(machine)) {}
  kj::Promise<void> connect(ConnectContext context) override {
    return rpc::answer(context, [this, context]() mutable {
      return rpc::receiveDescriptor(context.getParams().getSocket())
          .then(rpc::guarded([this, context](Fd socket) mutable {
            const std::uint32_t port = context.getParams().getPort();
            context.releaseParams();
            return machine_->connectVsock(port, std::move(socket));
          }));
    });
  }

 private:
  MachinePtr machine_;
};

}  // namespace

void offerByFunctions(const MachinePtr& machine, schema::Abilities::Builder abilities) {
  if (machine->canPause()) {
    abilities.setPausable(kj::heap<PausableServer>(machine));
  }
  if (machine->hasPowerButton()) {
    abilities.setPowerButton(kj::heap<PowerButtonServer>(machine));
  }
  if (machine->canReset()) {
    abilities.setResettable(kj::heap<ResettableServer>(machine));
  }
  if (machine->hasBalloon()) {
    abilities.setBalloon(kj::heap<BalloonServer>(machine));
  }
  if (machine->canResizeConsoles()) {
    abilities.setConsoleSize(kj::heap<ConsoleSizeServer>(machine));
  }
  if (machine->hasVsock()) {
    abilities.setVsock(kj::heap<VsockDeviceServer>(machine));
  }
}

}  // namespace vmmhost::worker
