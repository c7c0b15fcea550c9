#include "worker-kvm/pci/pvpanic.h"

#include <algorithm>

namespace vmmhost::kvm::pci {

namespace {

constexpr std::uint8_t kPanicked = 1;
constexpr std::uint8_t kCrashLoaded = 2;  // a kernel of the guest's own takes over, and reports

}  // namespace

Pvpanic::Pvpanic(devices::MachineControl& machine)
    : Function({.vendor = 0x1b36,
                .device = 0x0011,
                .classCode = 0x088000,
                .revision = 1,
                .subsystemVendor = 0x1af4,
                .subsystem = 0x1100}),
      machine_(machine) {
  addBaseAddress(0, 16, *this);
}

void Pvpanic::read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept {
  std::fill(data.begin(), data.end(), std::uint8_t{0});
  if (offset == 0) {
    data[0] = kPanicked | kCrashLoaded;
  }
}

void Pvpanic::write(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept {
  if (offset != 0) {
    return;
  }
  if ((data[0] & kPanicked) != 0) {
    machine_.requestEnd(devices::EndReason::kPanic);
  } else if ((data[0] & kCrashLoaded) != 0) {
    machine_.noteCrash();
  }
}

}  // namespace vmmhost::kvm::pci
