// The device by which a guest's kernel tells that it has panicked.
// Source: QEMU's docs/specs/pvpanic.rst (PCI variant).
#pragma once

#include "worker-kvm/devices/bus.h"
#include "worker-kvm/devices/machine_control.h"
#include "worker-kvm/pci/function.h"

namespace vmmhost::kvm::pci {

class Pvpanic final : public Function, private devices::BusDevice {
 public:
  explicit Pvpanic(devices::MachineControl& machine);

  void reset() override { Function::reset(); }

 private:
  void read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override;
  void write(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept override;

  devices::MachineControl& machine_;
};

}  // namespace vmmhost::kvm::pci
