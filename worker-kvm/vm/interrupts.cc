#include "worker-kvm/vm/interrupts.h"

#include "worker-kvm/arch/x86_64/layout.h"

namespace vmmhost::kvm::vm {

Interrupts::Interrupts(Vm& vm, IrqchipMode mode) : vm_(vm) {
  if (mode == IrqchipMode::kSplit) {
    vm.enableSplitIrqchip(arch::kIoApicPins);
    return;
  }
  vm.createIrqchip();
  vm.createPit();
  for (const std::uint32_t chip : {KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC}) {
    initialChips_.push_back(vm.irqchip(chip));
  }
  initialPit_ = vm.pit();
  serialLine_ = std::make_unique<EventLine>();
  vm.attachInterrupt(serialLine_->descriptor(), arch::kSerialInterrupt);
}

std::vector<int> Interrupts::signalDescriptors() const {
  return serialLine_ ? std::vector<int>{serialLine_->descriptor()} : std::vector<int>{};
}

void Interrupts::reset() {
  for (const kvm_irqchip& chip : initialChips_) {
    vm_.setIrqchip(chip);
  }
  if (!initialChips_.empty()) {
    vm_.setPit(initialPit_);
  }
}

}  // namespace vmmhost::kvm::vm
