// Runs one virtual CPU on a thread of its own and carries out what it leaves KVM_RUN for.
#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "vmmhost/counters.h"
#include "worker-kvm/devices/bus.h"
#include "worker-kvm/kvm/device.h"
#include "worker-kvm/threads/thread.h"
#include "worker-kvm/vm/run_control.h"

namespace vmmhost::kvm::vm {

class VcpuRunner {
 public:
  // All of these outlive the runner.
  struct Context {
    RunControl& control;
    const devices::PortBus& ports;
    const devices::MmioBus& memory;
    counters::WorkerPage& counters;
  };
  VcpuRunner(std::uint32_t index, Vcpu vcpu, const Context& context);
  // RunControl::exit() has been called.
  ~VcpuRunner();

  // Starts the thread, which installs `filter` (seccomp; empty: none) for itself and parks.
  void startThread(std::vector<sock_filter> filter);
  // Makes the thread look at RunControl again.
  void kick() noexcept;

  // For the control thread, while the virtual CPU is parked.
  Vcpu& vcpu() noexcept { return vcpu_; }
  std::uint32_t index() const noexcept { return index_; }

 private:
  void threadMain(const std::vector<sock_filter>& filter);
  void runGuest() noexcept;
  void handleExit() noexcept;
  void handlePortAccess() noexcept;
  void handleMemoryAccess() noexcept;
  void handleInternalError() noexcept;
  void end(EndCause cause, const char* format, ...) noexcept __attribute__((format(printf, 3, 4)));

  const std::uint32_t index_;
  Vcpu vcpu_;
  Context context_;
  std::unique_ptr<threads::Thread> thread_;
};

}  // namespace vmmhost::kvm::vm
