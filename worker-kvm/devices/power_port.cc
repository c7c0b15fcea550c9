#include "worker-kvm/devices/power_port.h"

#include <algorithm>

#include "worker-kvm/arch/x86_64/layout.h"

namespace vmmhost::kvm::devices {

namespace {

// SLP_TYPx = 5 (S5, soft off) in bits 2 to 4 and SLP_EN in bit 5.
constexpr std::uint8_t kSoftOff = 0x34;

}  // namespace

PowerPort::PowerPort(PortBus& bus, MachineControl& machine)
    : machine_(machine), registration_(bus, arch::kPowerPort, 1, *this, "power port") {
}

void PowerPort::read(std::uint64_t, std::span<std::uint8_t> data) noexcept {
  std::fill(data.begin(), data.end(), std::uint8_t{0});
}

void PowerPort::write(std::uint64_t, std::span<const std::uint8_t> data) noexcept {
  if (data.front() == kSoftOff) {
    machine_.requestEnd(EndReason::kPowerOff);
  }
}

}  // namespace vmmhost::kvm::devices
