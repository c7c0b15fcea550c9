#include "worker-kvm/arch/x86_64/cpuid.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace vmmhost::kvm::arch {
namespace {

kvm_cpuid_entry2 entry(std::uint32_t function, std::uint32_t eax, std::uint32_t ebx, std::uint32_t ecx,
                       std::uint32_t edx) {
  kvm_cpuid_entry2 value{};
  value.function = function;
  value.eax = eax;
  value.ebx = ebx;
  value.ecx = ecx;
  value.edx = edx;
  return value;
}

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

TEST(GuestCpuid, topologyLeaf_describesOneThreadInEachCore) {
  const auto entries = guestCpuid({entry(0xb, 9, 9, 9, 9), entry(0x1f, 9, 9, 9, 9)}, 5, 6, true);
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(find(entries, 0xb, 0)->ebx, 1U);
  const auto* cores = find(entries, 0xb, 1);
  EXPECT_EQ(cores->eax, 3U);  // 6 processors need 3 bits
  EXPECT_EQ(cores->ebx, 6U);
  EXPECT_EQ(cores->edx, 5U);
}

TEST(GuestCpuid, amdLeaves_hideVirtualizationAndCountProcessors) {
  const auto entries =
      guestCpuid({entry(0x80000001, 0, 0, 0xf, 0), entry(0x80000008, 0x3030, 0, 0x7fff, 0)}, 0, 1, true);
  EXPECT_EQ(find(entries, 0x80000001)->ecx, 0xfU & ~4U);
  EXPECT_EQ(find(entries, 0x80000008)->ecx, 0U);
}

TEST(GuestCpuid, nothingSupported_givesNothing) {
  EXPECT_TRUE(guestCpuid({}, 0, 1, true).empty());
}

}  // namespace
}  // namespace vmmhost::kvm::arch
