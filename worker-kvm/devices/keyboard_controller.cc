#include "worker-kvm/devices/keyboard_controller.h"

#include <algorithm>

#include "worker-kvm/arch/x86_64/layout.h"

namespace vmmhost::kvm::devices {

namespace {

constexpr std::uint8_t kPulseReset = 0xfe;  // pulse output line 0, which is the processor's reset

}  // namespace

KeyboardController::KeyboardController(PortBus& bus, MachineControl& machine)
    : machine_(machine),
      dataPort_(bus),
      registration_(bus, arch::kKeyboardCommandPort, 1, *this, "keyboard controller") {
}

void KeyboardController::read(std::uint64_t, std::span<std::uint8_t> data) noexcept {
  std::fill(data.begin(), data.end(), std::uint8_t{0});  // status: nothing to read, ready for a command
}

void KeyboardController::write(std::uint64_t, std::span<const std::uint8_t> data) noexcept {
  if (data.front() == kPulseReset) {
    machine_.requestEnd(EndReason::kReset);
  }
}

KeyboardController::DataPort::DataPort(PortBus& bus)
    : registration_(bus, arch::kKeyboardDataPort, 1, *this, "keyboard controller data") {
}

void KeyboardController::DataPort::read(std::uint64_t, std::span<std::uint8_t> data) noexcept {
  std::fill(data.begin(), data.end(), std::uint8_t{0});
}

}  // namespace vmmhost::kvm::devices
