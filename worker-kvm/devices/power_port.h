// The port at which a guest switches itself off: an ACPI sleep control register (ACPI 6.5, 4.8.4.4), as Cloud
// Hypervisor has it.
#pragma once

#include "worker-kvm/devices/bus.h"
#include "worker-kvm/devices/machine_control.h"

namespace vmmhost::kvm::devices {

class PowerPort final : public BusDevice {
 public:
  PowerPort(PortBus& bus, MachineControl& machine);

  void read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override;
  void write(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept override;
  void reset() override {}

 private:
  MachineControl& machine_;
  Bus::Registration registration_;
};

}  // namespace vmmhost::kvm::devices
