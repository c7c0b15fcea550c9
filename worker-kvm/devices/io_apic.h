// An I/O APIC of 24 pins: registers that say which message each pin sends. The messages themselves are sent by vectors,
// that is by the kernel.
// Source: Intel 82093AA data sheet; version and EOI register as of the ICH's (Intel 6 series PCH, 10.5).
#pragma once

#include <array>
#include <cstdint>
#include <mutex>

#include "worker-kvm/arch/x86_64/layout.h"
#include "worker-kvm/devices/bus.h"
#include "worker-kvm/devices/signals.h"

namespace vmmhost::kvm::devices {

class IoApic final : public BusDevice {
 public:
  explicit IoApic(MmioBus& bus);

  // `vector` sends what the pin's redirection entry says, and outlives its use. An edge while the entry is masked is
  // sent when it is unmasked. Levels are taken for edges: every device of this machine pulses.
  void attach(std::uint32_t pin, MessageVector& vector);

  void read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override;
  void write(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept override;
  void reset() override;

  // The message of a redirection entry (82093AA, 3.2.4) as a write of a device to a local APIC (Intel SDM, 11.11).
  struct Message {
    std::uint64_t address = 0;
    std::uint32_t data = 0;
  };
  static Message messageOf(std::uint64_t entry) noexcept;

 private:
  std::uint32_t readRegister() const noexcept;
  void writeRegister(std::uint32_t value) noexcept;
  void apply(std::uint32_t pin) noexcept;

  std::mutex mutex_;
  std::uint8_t selected_ = 0;
  std::uint8_t id_ = 0;
  std::array<std::uint64_t, arch::kIoApicPins> entries_{};
  std::array<MessageVector*, arch::kIoApicPins> vectors_{};
  Bus::Registration registration_;
};

}  // namespace vmmhost::kvm::devices
