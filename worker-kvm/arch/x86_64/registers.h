// Register contents of a virtual CPU at the PVH entry point and after a reset.
#pragma once

#include <cstdint>

#include "worker-kvm/kvm/device.h"

namespace vmmhost::kvm::arch {

// Xen's docs/misc/pvh.pandoc: 32-bit protected mode without paging, flat segments, EBX = start info.
kvm_regs pvhRegisters(std::uint32_t entry);
// `base`: what KVM gave the fresh virtual CPU.
kvm_sregs pvhSpecialRegisters(const kvm_sregs& base);

// What of a virtual CPU's state survives KVM_SET_REGS and KVM_SET_SREGS goes back to its reset value: floating point,
// debug registers, pending events, and the model-specific registers that a guest writes, among them those that make
// KVM write into guest memory (paravirtual clock, steal time, asynchronous page faults).
void resetHiddenState(Vcpu& vcpu);

}  // namespace vmmhost::kvm::arch
