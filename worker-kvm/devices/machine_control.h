// What a device may ask of the machine that it is part of.
#pragma once

#include <cstdint>

namespace vmmhost::kvm::devices {

enum class EndReason : std::uint8_t { kPowerOff, kReset };

// Called from the thread of the virtual CPU that made the access; that CPU runs no guest code any more afterwards.
class MachineControl {
 public:
  virtual ~MachineControl() = default;
  virtual void requestEnd(EndReason reason) noexcept = 0;
};

}  // namespace vmmhost::kvm::devices
