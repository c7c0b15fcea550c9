// As much of a PC's i8042 as is used for a reset: no keyboard, an input buffer that is always empty.
#pragma once

#include "worker-kvm/devices/bus.h"
#include "worker-kvm/devices/machine_control.h"

namespace vmmhost::kvm::devices {

class KeyboardController final : public BusDevice {
 public:
  KeyboardController(PortBus& bus, MachineControl& machine);

  void read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override;
  void write(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept override;
  void reset() override {}

 private:
  // The data port, at which nothing ever happens: the device itself is the command port.
  class DataPort final : public BusDevice {
   public:
    explicit DataPort(PortBus& bus);
    void read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override;
    void write(std::uint64_t, std::span<const std::uint8_t>) noexcept override {}
    void reset() override {}

   private:
    Bus::Registration registration_;
  };

  MachineControl& machine_;
  DataPort dataPort_;
  Bus::Registration registration_;
};

}  // namespace vmmhost::kvm::devices
