// What a device may ask of the machine that it is part of.
#pragma once

#include <cstdint>

namespace vmmhost::kvm::devices {

enum class EndReason : std::uint8_t { kPowerOff, kReset, kPanic, kWatchdog };

class MachineControl {
 public:
  virtual ~MachineControl() = default;
  // From any thread. Where it is that of the virtual CPU that made an access, that CPU runs no guest code any more.
  virtual void requestEnd(EndReason reason) noexcept = 0;
  // The guest's kernel has crashed, and one that the guest keeps for this takes over.
  virtual void noteCrash() noexcept = 0;
};

}  // namespace vmmhost::kvm::devices
