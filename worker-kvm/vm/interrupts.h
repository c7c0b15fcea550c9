// The interrupt controllers of a machine and the lines that devices raise.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "worker-kvm/devices/serial.h"
#include "worker-kvm/kvm/device.h"
#include "worker-kvm/vm/wake.h"

namespace vmmhost::kvm::vm {

// kSplit: only the local APICs are in the kernel; devices interrupt by messages, legacy lines are not delivered.
// kFull: PIC, I/O APIC and PIT in the kernel too. Measured on an emulating KVM: making and ending a VM takes 1.7 ms
// with the first and 16 to 21 ms with the second, nearly all of it for taking the kernel's devices off its buses again.
enum class IrqchipMode : std::uint8_t { kSplit, kFull };

class Interrupts {
 public:
  // Before virtual CPUs and after memory (a memory slot waits for what the irqchip has queued: 5 ms).
  Interrupts(Vm& vm, IrqchipMode mode);

  // The line of the first serial port; null if legacy lines are not delivered.
  devices::InterruptLine* serialLine() noexcept { return serialLine_.get(); }
  std::vector<int> signalDescriptors() const;
  void reset();

 private:
  class EventLine final : public devices::InterruptLine {
   public:
    void pulse() noexcept override { event_.signal(); }
    int descriptor() const noexcept { return event_.descriptor(); }

   private:
    Wake event_;
  };

  Vm& vm_;
  std::unique_ptr<EventLine> serialLine_;
  std::vector<kvm_irqchip> initialChips_;
  kvm_pit_state2 initialPit_{};
};

}  // namespace vmmhost::kvm::vm
