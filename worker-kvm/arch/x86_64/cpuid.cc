#include "worker-kvm/arch/x86_64/cpuid.h"

#include <bit>

namespace vmmhost::kvm::arch {

namespace {

// Intel SDM, volume 2, CPUID leaf 1; AMD APM, volume 3, appendix E.
constexpr std::uint32_t kLeaf1EcxVmx = 1U << 5;
constexpr std::uint32_t kLeaf1EcxTscDeadline = 1U << 24;
constexpr std::uint32_t kLeaf1EcxHypervisor = 1U << 31;
constexpr std::uint32_t kLeaf1EdxHyperThreading = 1U << 28;
constexpr std::uint32_t kExtendedEcxSvm = 1U << 2;
constexpr std::uint32_t kTopologyLevelThread = 1U << 8;
constexpr std::uint32_t kTopologyLevelCore = 2U << 8;

void describeFeatures(kvm_cpuid_entry2& entry, std::uint32_t apicId, std::uint32_t cpuCount, bool tscDeadlineTimer) {
  entry.ebx = (entry.ebx & 0x0000ffff) | (apicId << 24) | (cpuCount << 16);
  entry.ecx = (entry.ecx & ~(kLeaf1EcxVmx | kLeaf1EcxTscDeadline)) | kLeaf1EcxHypervisor |
              (tscDeadlineTimer ? kLeaf1EcxTscDeadline : 0);
  entry.edx = cpuCount > 1 ? entry.edx | kLeaf1EdxHyperThreading : entry.edx & ~kLeaf1EdxHyperThreading;
}

// Extended topology (leaf 0xb): one thread in each core, all cores in one package.
void appendTopology(std::vector<kvm_cpuid_entry2>& entries, std::uint32_t apicId, std::uint32_t cpuCount) {
  kvm_cpuid_entry2 entry{};
  entry.function = 0xb;
  entry.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
  entry.edx = apicId;
  entry.ebx = 1;
  entry.ecx = kTopologyLevelThread;
  entries.push_back(entry);
  entry.index = 1;
  entry.eax = static_cast<std::uint32_t>(std::bit_width(cpuCount - 1));
  entry.ebx = cpuCount;
  entry.ecx = kTopologyLevelCore | 1;
  entries.push_back(entry);
}

}  // namespace

std::vector<kvm_cpuid_entry2> guestCpuid(std::vector<kvm_cpuid_entry2> supported, std::uint32_t apicId,
                                         std::uint32_t cpuCount, bool tscDeadlineTimer) {
  // KVM leaves both topology leaves to us; 0x1f only adds levels that this guest has not.
  const bool hasTopology =
      std::erase_if(supported, [](const auto& entry) { return entry.function == 0xb || entry.function == 0x1f; }) > 0;
  for (kvm_cpuid_entry2& entry : supported) {
    switch (entry.function) {
      case 0x1:
        describeFeatures(entry, apicId, cpuCount, tscDeadlineTimer);
        break;
      case 0x4:  // cache sharing and cores in a package, where the leaf describes a cache at all
        if ((entry.eax & 0x1f) != 0) {
          entry.eax = (entry.eax & 0x00003fff) | ((cpuCount - 1) << 26);
        }
        break;
      case 0x80000001:
        entry.ecx &= ~kExtendedEcxSvm;
        break;
      case 0x80000008:  // AMD: number of threads in the package
        entry.ecx =
            (entry.ecx & ~0xffffU) | (cpuCount - 1) | (static_cast<std::uint32_t>(std::bit_width(cpuCount - 1)) << 12);
        break;
      case 0x8000001e:  // AMD: APIC number, core, node
        entry.eax = apicId;
        entry.ebx = apicId;
        entry.ecx = 0;
        break;
      default:
        break;
    }
  }
  if (hasTopology) {
    appendTopology(supported, apicId, cpuCount);
  }
  return supported;
}

}  // namespace vmmhost::kvm::arch
