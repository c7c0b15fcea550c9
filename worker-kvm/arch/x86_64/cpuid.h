// What CPUID tells a guest.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <vector>

namespace vmmhost::kvm::arch {

// The leaves of one virtual CPU, from those that KVM supports: its APIC number, `cpuCount` cores of one thread in one
// socket, the hypervisor bit, the TSC deadline timer where KVM has it, and no hardware virtualization of its own.
// Cloud Hypervisor's and Firecracker's templates change the same leaves. `supported` may be empty.
std::vector<kvm_cpuid_entry2> guestCpuid(std::vector<kvm_cpuid_entry2> supported, std::uint32_t apicId,
                                         std::uint32_t cpuCount, bool tscDeadlineTimer);

}  // namespace vmmhost::kvm::arch
