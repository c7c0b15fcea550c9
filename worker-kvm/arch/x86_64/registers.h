// Register contents of a virtual CPU where a kernel begins and after a reset.
#pragma once

#include "worker-kvm/arch/x86_64/entry.h"
#include "worker-kvm/kvm/device.h"

namespace vmmhost::kvm::arch {

kvm_regs entryRegisters(const EntryState& entry);
// `base`: what KVM gave the fresh virtual CPU.
kvm_sregs entrySpecialRegisters(const EntryState& entry, const kvm_sregs& base);

// What firmware would have left in model-specific registers: memory is write-back (MTRRs, without which Linux 6.1 goes
// without PAT too), fast string operations are on. For every virtual CPU, once before it runs first.
void setFirmwareMsrs(Vcpu& vcpu);

// What of a virtual CPU's state survives KVM_SET_REGS and KVM_SET_SREGS goes back to what it was before the first
// instruction: floating point, debug registers, pending events, and the model-specific registers that a guest writes,
// among them those that make KVM write into guest memory (paravirtual clock, steal time, asynchronous page faults).
void resetHiddenState(Vcpu& vcpu);

}  // namespace vmmhost::kvm::arch
