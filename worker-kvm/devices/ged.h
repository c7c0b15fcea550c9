// The register of an ACPI Generic Event Device (ACPI 6.5, 5.6.9): the host sets a bit and raises the interrupt, the
// guest's _EVT method reads the register, which clears it, and notifies the devices whose bits were set.
#pragma once

#include <atomic>
#include <cstdint>

#include "worker-kvm/devices/bus.h"
#include "worker-kvm/devices/serial.h"

namespace vmmhost::kvm::devices {

class Ged final : public BusDevice {
 public:
  // `interrupt` is line arch::kGedInterrupt; null if legacy lines are not delivered (events wait for a guest that
  // looks).
  Ged(PortBus& bus, InterruptLine* interrupt);

  // From the control thread. A press that the guest has not seen yet is one with the next.
  void pressPowerButton() noexcept { raise(kPowerButton); }
  // `bits` as acpi::Event has them.
  void raise(std::uint8_t bits) noexcept;

  void read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override;
  void write(std::uint64_t, std::span<const std::uint8_t>) noexcept override {}
  void reset() override { events_.store(0); }

 private:
  static constexpr std::uint8_t kPowerButton = 0x01;  // acpi::kPowerButtonEvent

  InterruptLine* interrupt_;
  std::atomic<std::uint8_t> events_{0};
  Bus::Registration registration_;
};

}  // namespace vmmhost::kvm::devices
