#include "worker-kvm/devices/ged.h"

#include <algorithm>

#include "worker-kvm/arch/x86_64/layout.h"

namespace vmmhost::kvm::devices {

Ged::Ged(PortBus& bus, InterruptLine* interrupt)
    : interrupt_(interrupt), registration_(bus, arch::kGedPort, 1, *this, "generic event device") {
}

void Ged::raise(std::uint8_t bits) noexcept {
  events_.fetch_or(bits);
  if (interrupt_ != nullptr) {
    interrupt_->pulse();
  }
}

void Ged::read(std::uint64_t, std::span<std::uint8_t> data) noexcept {
  std::fill(data.begin(), data.end(), std::uint8_t{0});
  data.front() = events_.exchange(0);
}

}  // namespace vmmhost::kvm::devices
