// The machine as the worker's protocol sees it: a VirtualMachine and its console, driven by the event loop.
#pragma once

#include <kj/async-io.h>
#include <kj/vector.h>

#include <memory>
#include <utility>
#include <vector>

#include "vmmhost/counters.h"
#include "vmmhost/fd.h"
#include "vmmhost/worker/worker.h"
#include "worker-kvm/vm/console.h"
#include "worker-kvm/vm/virtual_machine.h"

namespace vmmhost::kvm::vm {

class KvmMachine final : public worker::Machine {
 public:
  struct Parts {
    std::unique_ptr<counters::WorkerPage> counters;  // that `machine` counts into
    std::unique_ptr<VirtualMachine> machine;         // its threads are started
    Fd console;                                      // of the serial port; may be empty
    bool resetsByWatchdog = false;                   // a watchdog that runs out resets the machine; else it ends it
  };
  KvmMachine(Parts parts, worker::Events& events, kj::AsyncIoContext& io);
  ~KvmMachine() noexcept override;

  void keep(std::vector<Fd> descriptors) { kept_ = std::move(descriptors); }  // open, for as long as it lives

  // Fulfilled when no virtual CPU runs guest code, or once they were told to run again.
  kj::Promise<void> whenParked();

  kj::Promise<void> start() override;
  bool canPause() const override { return true; }
  kj::Promise<void> pause() override;
  kj::Promise<void> resume() override;
  bool canReset() const override { return true; }
  kj::Promise<void> reset() override;
  bool hasPowerButton() const override { return true; }
  kj::Promise<void> pressPowerButton() override;
  bool hasBalloon() const override { return controls().setBalloonTarget != nullptr; }
  kj::Promise<void> setBalloonTarget(std::uint64_t bytes) override;
  kj::Promise<std::uint64_t> balloonActual() override { return controls().balloonActual(); }
  bool canResizeConsoles() const override { return controls().resizeConsole != nullptr; }
  kj::Promise<void> resizeConsole(std::uint32_t console, std::uint16_t columns, std::uint16_t rows) override;
  bool hasVsock() const override { return controls().connectVsock != nullptr; }
  kj::Promise<void> connectVsock(std::uint32_t port, Fd socket) override;

 private:
  enum class Life { kCreated, kStarted, kEnding, kEnded };

  const DeviceControls& controls() const noexcept { return machine_->controls(); }
  kj::Promise<void> watch();
  void lookAtMachine();
  // Lets the virtual CPUs run, or asks them to park, as the wishes below say.
  void apply();
  kj::Promise<void> whenQuiet();
  kj::Promise<void> whenLoaded();
  kj::Promise<void> restart();
  // Half loaded: guest code must not run. The host hears of it as the machine's end too.
  kj::Promise<void> failReset(const Error& error);
  void reportEnd();
  void requireAlive(const char* operation) const;

  worker::Events& events_;
  kj::Timer& timer_;
  std::unique_ptr<counters::WorkerPage> counters_;
  std::unique_ptr<VirtualMachine> machine_;
  kj::UnixEventPort::FdObserver observer_;
  Console console_;
  const bool resetsByWatchdog_;
  std::vector<Fd> kept_;
  Life life_ = Life::kCreated;
  bool paused_ = false;
  bool isResetting_ = false;
  bool isPressed_ = false;                   // the power button, during a reset
  kj::ForkedPromise<void> reset_ = nullptr;  // the last one
  kj::Vector<kj::Own<kj::PromiseFulfiller<void>>> waitingForPark_;
  kj::Vector<kj::Own<kj::PromiseFulfiller<void>>> waitingForQuiet_;
  kj::Vector<kj::Own<kj::PromiseFulfiller<void>>> waitingForLoad_;
  kj::Promise<void> watchTask_;
  kj::Promise<void> endTask_ = kj::READY_NOW;
  kj::Promise<void> watchdogTask_ = kj::READY_NOW;
};

}  // namespace vmmhost::kvm::vm
