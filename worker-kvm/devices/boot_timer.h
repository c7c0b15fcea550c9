// A port at which a guest tells how far its boot is: Cloud Hypervisor's debug port, 0x80, with its values (its
// docs/debug-port.md): 0x40 when a kernel starts, 0x41 when user space does.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "worker-kvm/devices/bus.h"

namespace vmmhost::kvm::devices {

// Only the first write of each value is told: a PC's kernels write any value to this port to make a pause (Linux:
// io_delay=0x80), and 256 reports are all that a guest can cause until a reset.
class BootTimer final : public BusDevice {
 public:
  static constexpr std::uint8_t kKernelStarted = 0x40;
  static constexpr std::uint8_t kUserSpaceStarted = 0x41;

  // Told from a guest's thread.
  class Sink {
   public:
    virtual ~Sink() = default;
    // `monotonic`: of CLOCK_MONOTONIC.
    virtual void bootPhase(std::uint8_t value, std::chrono::nanoseconds monotonic) noexcept = 0;
  };

  BootTimer(PortBus& bus, Sink& sink);

  void read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override;
  void write(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept override;
  void reset() override;

 private:
  Sink& sink_;
  std::array<std::atomic<bool>, 256> seen_{};
  Bus::Registration registration_;
};

}  // namespace vmmhost::kvm::devices
