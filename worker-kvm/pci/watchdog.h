// An i6300ESB watchdog timer: a guest that does not reload it in time is ended.
// Source: Intel 6300ESB I/O Controller Hub data sheet, chapter 16 (watchdog timer); section numbers in comments are
// its.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

#include "vmmhost/fd.h"
#include "worker-kvm/devices/bus.h"
#include "worker-kvm/devices/machine_control.h"
#include "worker-kvm/io/event_thread.h"
#include "worker-kvm/pci/function.h"
#include "worker-kvm/threads/control_calls.h"

namespace vmmhost::kvm::pci {

class Watchdog final : public Function, private devices::BusDevice, private io::EventThread::Source {
 public:
  // Its timer is watched on `thread`, which has not started yet and whose rules contain rules(), and set by way of
  // `calls`.
  Watchdog(devices::MachineControl& machine, threads::ControlCalls& calls, io::EventThread& thread);
  ~Watchdog() override;

  static confine::Rules rules();

  void writeConfig(std::size_t offset, std::span<const std::uint8_t> data) noexcept override;
  void setRunning(bool running) noexcept override;
  void reset() override;

 private:
  void read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override;
  void write(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept override;
  void ready(std::uint32_t events) noexcept override;

  void startStage(unsigned stage) noexcept;
  void stop() noexcept;
  void arm(std::chrono::nanoseconds time) noexcept;
  std::chrono::nanoseconds timeOf(unsigned stage) const noexcept;

  devices::MachineControl& machine_;
  threads::ControlCalls& calls_;
  io::EventThread& thread_;
  Fd timer_;

  // Held while a virtual CPU waits for the control thread, which takes it only when none runs; never by ready() while
  // it waits.
  std::mutex mutex_;
  std::uint32_t preload_[2];
  std::uint8_t unlockStep_ = 0;
  unsigned stage_ = 0;  // 1 or 2 while it runs
  bool hasTimedOut_ = false;
  bool isRunning_ = true;
  std::chrono::nanoseconds left_{};  // while the machine is paused
};

}  // namespace vmmhost::kvm::pci
