#include "worker-kvm/arch/x86_64/cpuid.h"

#include <algorithm>
#include <bit>

namespace vmmhost::kvm::arch {

namespace {

// Intel SDM, volume 2, CPUID; AMD APM, volume 3, appendix E. Bits are named by leaf and register.
constexpr std::uint32_t kLeaf1EcxVmx = 1U << 5;
constexpr std::uint32_t kLeaf1EcxTscDeadline = 1U << 24;
constexpr std::uint32_t kLeaf1EcxHypervisor = 1U << 31;
constexpr std::uint32_t kLeaf1EdxHyperThreading = 1U << 28;
constexpr std::uint32_t kLeaf7EbxSgx = 1U << 2;
constexpr std::uint32_t kLeaf7EcxSgxLaunchControl = 1U << 30;
constexpr std::uint32_t kExtended1EcxCmpLegacy = 1U << 1;
constexpr std::uint32_t kExtended1EcxSvm = 1U << 2;
constexpr std::uint32_t kExtended7EdxInvariantTsc = 1U << 8;
constexpr std::uint32_t kTopologyLevelThread = 1U << 8;
constexpr std::uint32_t kTopologyLevelCore = 2U << 8;
constexpr std::uint32_t kVendorAmd = 0x68747541;    // "Auth", EBX of leaf 0
constexpr std::uint32_t kVendorHygon = 0x6f677948;  // "Hygo"
constexpr std::uint32_t kLastCacheLevel = 3;
constexpr std::uint32_t kApicBusKilohertz = 1'000'000;  // KVM's APIC_BUS_CYCLE_NS is 1

// Linux's arch/x86/include/uapi/asm/kvm_para.h, and QEMU for the third.
constexpr std::uint32_t kKvmSignature = 0x40000000;
constexpr std::uint32_t kFrequencies = 0x40000010;

bool isAmd(const std::vector<kvm_cpuid_entry2>& leaves) {
  return std::any_of(leaves.begin(), leaves.end(), [](const auto& leaf) {
    return leaf.function == 0 && (leaf.ebx == kVendorAmd || leaf.ebx == kVendorHygon);
  });
}

// How many bits of APIC numbers tell `cpuCount` processors apart.
std::uint32_t idBits(std::uint32_t cpuCount) {
  return static_cast<std::uint32_t>(std::bit_width(cpuCount - 1));
}

void clear(kvm_cpuid_entry2& entry) {
  entry.eax = entry.ebx = entry.ecx = entry.edx = 0;
}

void describeFeatures(kvm_cpuid_entry2& entry, std::uint32_t apicId, std::uint32_t cpuCount, bool tscDeadlineTimer) {
  entry.ebx = (entry.ebx & 0x0000ffff) | (apicId << 24) | (cpuCount << 16);
  entry.ecx = (entry.ecx & ~(kLeaf1EcxVmx | kLeaf1EcxTscDeadline)) | kLeaf1EcxHypervisor |
              (tscDeadlineTimer ? kLeaf1EcxTscDeadline : 0);
  entry.edx = cpuCount > 1 ? entry.edx | kLeaf1EdxHyperThreading : entry.edx & ~kLeaf1EdxHyperThreading;
}

// Leaves 4 (Intel) and 0x8000001d (AMD), EAX: type in bits 0 to 4, level in 5 to 7, `sharing` in 14 to 25: the largest
// APIC number above the first of those that share the cache (AMD: their number but one).
void describeSharing(kvm_cpuid_entry2& entry, std::uint32_t sharing) {
  const std::uint32_t level = entry.eax >> 5 & 7;
  entry.eax = (entry.eax & ~(0xfffU << 14)) | (level >= kLastCacheLevel ? sharing << 14 : 0);
}

void describeIntelCache(kvm_cpuid_entry2& entry, std::uint32_t cpuCount) {
  if ((entry.eax & 0x1f) == 0) {
    return;  // no cache: the last subleaf
  }
  const std::uint32_t largestId = (1U << idBits(cpuCount)) - 1;
  describeSharing(entry, largestId);
  entry.eax = (entry.eax & 0x03ffffff) | (largestId << 26);  // addressable cores of the package but one
}

// Extended topology (leaves 0xb and 0x1f): one thread in each core, all cores in one package.
void appendTopology(std::vector<kvm_cpuid_entry2>& entries, std::uint32_t leaf, std::uint32_t apicId,
                    std::uint32_t cpuCount) {
  kvm_cpuid_entry2 entry{};
  entry.function = leaf;
  entry.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
  entry.edx = apicId;
  entry.ebx = 1;
  entry.ecx = kTopologyLevelThread;
  entries.push_back(entry);
  entry.index = 1;
  entry.eax = idBits(cpuCount);
  entry.ebx = cpuCount;
  entry.ecx = kTopologyLevelCore | 1;
  entries.push_back(entry);
}

void replaceTopology(std::vector<kvm_cpuid_entry2>& entries, std::uint32_t leaf, std::uint32_t apicId,
                     std::uint32_t cpuCount) {
  if (std::erase_if(entries, [leaf](const auto& entry) { return entry.function == leaf; }) > 0) {
    appendTopology(entries, leaf, apicId, cpuCount);
  }
}

void appendFrequencies(std::vector<kvm_cpuid_entry2>& entries, std::uint32_t tscKilohertz) {
  const auto find = [&entries](std::uint32_t leaf) {
    return std::find_if(entries.begin(), entries.end(), [leaf](const auto& entry) { return entry.function == leaf; });
  };
  const auto power = find(0x80000007);
  const auto signature = find(kKvmSignature);
  if (power == entries.end() || (power->edx & kExtended7EdxInvariantTsc) == 0 || signature == entries.end() ||
      find(kFrequencies) != entries.end()) {
    return;
  }
  signature->eax = std::max(signature->eax, kFrequencies);  // the highest leaf of its kind
  kvm_cpuid_entry2 entry{};
  entry.function = kFrequencies;
  entry.eax = tscKilohertz;
  entry.ebx = kApicBusKilohertz;
  entries.push_back(entry);
}

}  // namespace

std::vector<kvm_cpuid_entry2> guestCpuid(std::vector<kvm_cpuid_entry2> supported, std::uint32_t apicId,
                                         std::uint32_t cpuCount, bool tscDeadlineTimer, std::uint32_t tscKilohertz) {
  const bool amd = isAmd(supported);
  for (kvm_cpuid_entry2& entry : supported) {
    switch (entry.function) {
      case 0x1:
        describeFeatures(entry, apicId, cpuCount, tscDeadlineTimer);
        break;
      case 0x4:
        describeIntelCache(entry, cpuCount);
        break;
      case 0x7:
        if (entry.index == 0) {
          entry.ebx &= ~kLeaf7EbxSgx;
          entry.ecx &= ~kLeaf7EcxSgxLaunchControl;
        }
        break;
      case 0x12:        // SGX
      case 0x8000000a:  // SVM
      case 0x8000001f:  // encrypted memory
      case 0x80000026:  // AMD's own extended topology: leaf 0xb is there
        clear(entry);
        break;
      case 0x80000001:
        entry.ecx &= ~kExtended1EcxSvm;
        if (amd) {
          entry.ecx = (entry.ecx & ~kExtended1EcxCmpLegacy) | (cpuCount > 1 ? kExtended1EcxCmpLegacy : 0);
        }
        break;
      case 0x80000008:  // the number of threads in the package, and bits of their numbers
        if (amd) {
          entry.ecx = (entry.ecx & ~0xffffU) | (cpuCount - 1) | (idBits(cpuCount) << 12);
        }
        break;
      case 0x8000001d:
        if ((entry.eax & 0x1f) != 0) {
          describeSharing(entry, cpuCount - 1);
        }
        break;
      case 0x8000001e:  // APIC number; core and its threads but one; node and nodes but one
        if (amd) {
          entry.eax = apicId;
          entry.ebx = apicId;
          entry.ecx = 0;
        }
        break;
      default:
        break;
    }
  }
  replaceTopology(supported, 0xb, apicId, cpuCount);
  replaceTopology(supported, 0x1f, apicId, cpuCount);
  if (tscKilohertz != 0) {
    appendFrequencies(supported, tscKilohertz);
  }
  return supported;
}

}  // namespace vmmhost::kvm::arch
