// What CPUID tells a guest.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <vector>

namespace vmmhost::kvm::arch {

// The leaves of one virtual CPU, from those that KVM supports (features and the KVM signature with its paravirtual
// features among them, which pass as they are). Changed is
// - the topology: its APIC number, `cpuCount` cores of one thread in one socket that share the last-level cache;
// - what only the VMM knows: a hypervisor is there, and the TSC deadline timer where KVM has it;
// - what this machine has not: virtualization of its own, SGX (no memory for it), encrypted memory;
// - the frequency of a time stamp counter that never changes it, if `tscKilohertz` is known (not 0): for guests that do
//   not ask the paravirtual clock (leaf 0x40000010, as VMware began it and QEMU has it). Leaves 0x15 and 0x16 stay
//   KVM's: Linux takes a local APIC's frequency from the crystal in 0x15, and that of KVM is no crystal's.
// Cloud Hypervisor's and Firecracker's templates change the same leaves. `supported` may be empty.
std::vector<kvm_cpuid_entry2> guestCpuid(std::vector<kvm_cpuid_entry2> supported, std::uint32_t apicId,
                                         std::uint32_t cpuCount, bool tscDeadlineTimer, std::uint32_t tscKilohertz = 0);

}  // namespace vmmhost::kvm::arch
