#include "worker-kvm/devices/boot_timer.h"

#include <algorithm>

#include "worker-kvm/arch/x86_64/layout.h"

namespace vmmhost::kvm::devices {

BootTimer::BootTimer(PortBus& bus, Sink& sink)
    : sink_(sink), registration_(bus, arch::kBootTimerPort, 1, *this, "boot timer") {
}

void BootTimer::read(std::uint64_t, std::span<std::uint8_t> data) noexcept {
  std::fill(data.begin(), data.end(), std::uint8_t{0});
}

void BootTimer::write(std::uint64_t, std::span<const std::uint8_t> data) noexcept {
  if (!seen_[data.front()].exchange(true)) {
    sink_.bootPhase(data.front(), std::chrono::steady_clock::now().time_since_epoch());
  }
}

void BootTimer::reset() {
  for (auto& seen : seen_) {
    seen.store(false);
  }
}

}  // namespace vmmhost::kvm::devices
