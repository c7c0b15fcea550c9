#include "worker-kvm/arch/x86_64/cpuid.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace vmmhost::kvm::arch {
namespace {

kvm_cpuid_entry2 entry(std::uint32_t function, std::uint32_t eax, std::uint32_t ebx, std::uint32_t ecx,
                       std::uint32_t edx, std::uint32_t index = 0) {
  kvm_cpuid_entry2 value{};
  value.function = function;
  value.index = index;
  value.eax = eax;
  value.ebx = ebx;
  value.ecx = ecx;
  value.edx = edx;
  return value;
}

const kvm_cpuid_entry2 kAmd = entry(0, 0x1c, 0x68747541, 0x444d4163, 0x69746e65);
const kvm_cpuid_entry2 kIntel = entry(0, 0x1f, 0x756e6547, 0x6c65746e, 0x49656e69);

const kvm_cpuid_entry2* find(const std::vector<kvm_cpuid_entry2>& entries, std::uint32_t function,
                             std::uint32_t index = 0) {
  const auto found = std::find_if(entries.begin(), entries.end(), [&](const auto& candidate) {
    return candidate.function == function && candidate.index == index;
  });
  return found == entries.end() ? nullptr : &*found;
}

TEST(GuestCpuid, featureLeaf_hidesVirtualizationAndNamesTheProcessor) {
  const auto entries = guestCpuid({entry(1, 0, 0xaabbccdd, 1U << 5 | 1U << 24, 0)}, 3, 8, false);
  const auto* features = find(entries, 1);
  ASSERT_NE(features, nullptr);
  EXPECT_EQ(features->ebx, 0x0308ccddU);
  EXPECT_EQ(features->ecx, 1U << 31);  // hypervisor; neither VMX nor a deadline timer that KVM does not have
  EXPECT_EQ(features->edx, 1U << 28);
}

TEST(GuestCpuid, deadlineTimerAndX2apic_areToldWhereKvmHasThem) {
  const auto entries = guestCpuid({entry(1, 0, 0, 1U << 21, 1U << 28)}, 0, 1, true);
  EXPECT_EQ(find(entries, 1)->ecx, 1U << 31 | 1U << 24 | 1U << 21);
  EXPECT_EQ(find(entries, 1)->edx, 0U);  // one processor has no siblings
}

TEST(GuestCpuid, topologyLeaves_describeOneThreadInEachCore) {
  const auto entries = guestCpuid({entry(0xb, 9, 9, 9, 9), entry(0x1f, 9, 9, 9, 9)}, 5, 6, true);
  ASSERT_EQ(entries.size(), 4U);
  for (const std::uint32_t leaf : {0xbU, 0x1fU}) {
    const auto* threads = find(entries, leaf, 0);
    EXPECT_EQ(threads->eax, 0U);
    EXPECT_EQ(threads->ebx, 1U);
    EXPECT_EQ(threads->ecx, 0x100U);
    const auto* cores = find(entries, leaf, 1);
    EXPECT_EQ(cores->eax, 3U);  // 6 processors need 3 bits
    EXPECT_EQ(cores->ebx, 6U);
    EXPECT_EQ(cores->ecx, 0x201U);
    EXPECT_EQ(cores->edx, 5U);
  }
}

// An operating system takes the package apart by shifting APIC numbers: all must have one package, each its own core.
TEST(GuestCpuid, anyCount_hasOnePackageOfDistinctCores) {
  for (std::uint32_t count = 1; count <= 64; ++count) {
    for (std::uint32_t id = 0; id < count; ++id) {
      const auto entries = guestCpuid({kAmd, entry(1, 0, 0, 0, 0), entry(0xb, 0, 0, 0, 0),
                                       entry(0x80000008, 0, 0, 0, 0), entry(0x8000001e, 0, 0, 0, 0)},
                                      id, count, true);
      EXPECT_EQ(find(entries, 1)->ebx >> 24, id);
      EXPECT_EQ(find(entries, 1)->ebx >> 16 & 0xff, count);
      EXPECT_EQ(id >> find(entries, 0xb, 1)->eax, 0U);
      EXPECT_EQ(find(entries, 0xb, 1)->edx, id);
      EXPECT_EQ(id >> (find(entries, 0x80000008)->ecx >> 12 & 0xf), 0U);
      EXPECT_EQ((find(entries, 0x80000008)->ecx & 0xff) + 1, count);
      EXPECT_EQ(find(entries, 0x8000001e)->eax, id);
      EXPECT_EQ(find(entries, 0x8000001e)->ebx, id);
    }
  }
}

TEST(GuestCpuid, intelCaches_arePrivateButTheLast) {
  // Level 1 data, level 2, level 3, no more; shared by 2, 2 and 64 on the host.
  const auto entries = guestCpuid({kIntel, entry(4, 0xfc004121, 1, 1, 1, 0), entry(4, 0xfc004143, 1, 1, 1, 1),
                                   entry(4, 0xfc0fc163, 1, 1, 1, 2), entry(4, 0, 0, 0, 0, 3)},
                                  0, 6, true);
  EXPECT_EQ(find(entries, 4, 0)->eax, 7U << 26 | 0x121U);
  EXPECT_EQ(find(entries, 4, 1)->eax, 7U << 26 | 0x143U);
  EXPECT_EQ(find(entries, 4, 2)->eax, 7U << 26 | 7U << 14 | 0x163U);
  EXPECT_EQ(find(entries, 4, 3)->eax, 0U);
}

TEST(GuestCpuid, amdCaches_arePrivateButTheLast) {
  const auto entries = guestCpuid({kAmd, entry(0x8000001d, 0x4121, 1, 1, 1, 0), entry(0x8000001d, 0x3c163, 1, 1, 1, 3),
                                   entry(0x8000001d, 0, 0, 0, 0, 4)},
                                  0, 6, true);
  EXPECT_EQ(find(entries, 0x8000001d, 0)->eax, 0x121U);
  EXPECT_EQ(find(entries, 0x8000001d, 3)->eax, 5U << 14 | 0x163U);
  EXPECT_EQ(find(entries, 0x8000001d, 4)->eax, 0U);
}

TEST(GuestCpuid, amdLeaves_hideVirtualizationAndCountProcessors) {
  const auto one = guestCpuid({kAmd, entry(0x80000001, 0, 0, 0xf, 0), entry(0x80000008, 0x3030, 0, 0x7fff, 0),
                               entry(0x8000000a, 1, 2, 3, 4), entry(0x8000001f, 1, 2, 3, 4)},
                              0, 1, true);
  EXPECT_EQ(find(one, 0x80000001)->ecx, 0x9U);  // neither SVM nor several cores
  EXPECT_EQ(find(one, 0x80000008)->ecx, 0U);
  EXPECT_EQ(find(one, 0x80000008)->eax, 0x3030U);  // address bits are the host's
  EXPECT_EQ(find(one, 0x8000000a)->edx, 0U);
  EXPECT_EQ(find(one, 0x8000001f)->eax, 0U);
  EXPECT_EQ(find(guestCpuid({kAmd, entry(0x80000001, 0, 0, 0, 0)}, 0, 2, true), 0x80000001)->ecx, 2U);
}

TEST(GuestCpuid, intel_keepsWhatOnlyAmdDefines) {
  const auto entries =
      guestCpuid({kIntel, entry(0x80000008, 0x3027, 0, 0, 0), entry(0x80000001, 0, 0, 0x121, 0)}, 1, 4, true);
  EXPECT_EQ(find(entries, 0x80000008)->ecx, 0U);
  EXPECT_EQ(find(entries, 0x80000001)->ecx, 0x121U);
}

TEST(GuestCpuid, sgx_isHidden) {
  const auto entries = guestCpuid({entry(7, 2, UINT32_MAX, UINT32_MAX, 0), entry(7, 0, UINT32_MAX, 0, 0, 1),
                                   entry(0x12, 1, 1, 1, 1), entry(0x12, 1, 1, 1, 1, 1)},
                                  0, 1, true);
  EXPECT_EQ(find(entries, 7)->ebx, ~4U);
  EXPECT_EQ(find(entries, 7)->ecx, ~(1U << 30));
  EXPECT_EQ(find(entries, 7, 1)->ebx, UINT32_MAX);
  EXPECT_EQ(find(entries, 0x12)->eax, 0U);
  EXPECT_EQ(find(entries, 0x12, 1)->eax, 0U);
}

TEST(GuestCpuid, kvmLeaves_passAndTellTheFrequencyOfAnInvariantCounter) {
  const kvm_cpuid_entry2 signature = entry(0x40000000, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d);
  const kvm_cpuid_entry2 features = entry(0x40000001, 0x01007efb, 0, 0, 0);
  const kvm_cpuid_entry2 invariant = entry(0x80000007, 0, 0, 0, 0x100);
  const auto known = guestCpuid({signature, features, invariant}, 0, 1, true, 2'600'000);
  EXPECT_EQ(find(known, 0x40000000)->eax, 0x40000010U);
  EXPECT_EQ(find(known, 0x40000000)->ebx, 0x4b4d564bU);
  EXPECT_EQ(find(known, 0x40000001)->eax, 0x01007efbU);
  EXPECT_EQ(find(known, 0x40000010)->eax, 2'600'000U);
  EXPECT_EQ(find(known, 0x40000010)->ebx, 1'000'000U);
  const auto unknown = guestCpuid({signature, features, invariant}, 0, 1, true);
  EXPECT_EQ(find(unknown, 0x40000000)->eax, 0x40000001U);
  EXPECT_EQ(find(unknown, 0x40000010), nullptr);
  const auto variable = guestCpuid({signature, features, entry(0x80000007, 0, 0, 0, 0)}, 0, 1, true, 2'600'000);
  EXPECT_EQ(find(variable, 0x40000010), nullptr);
}

TEST(GuestCpuid, nothingSupported_givesNothing) {
  EXPECT_TRUE(guestCpuid({}, 0, 1, true, 1).empty());
}

}  // namespace
}  // namespace vmmhost::kvm::arch
