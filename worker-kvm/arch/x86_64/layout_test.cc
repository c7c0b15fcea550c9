#include "worker-kvm/arch/x86_64/layout.h"

#include <gtest/gtest.h>

namespace vmmhost::kvm::arch {
namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
using memory::Range;

TEST(PciWindow64, smallMemory_hasItFrom4GiB) {
  EXPECT_EQ(pciWindow64(128 << 20, 40), (Range{4 * kGiB, 64 * kGiB}));
  EXPECT_EQ(pciWindow64(3 * kGiB, 40), (Range{4 * kGiB, 64 * kGiB}));
}

TEST(PciWindow64, largeMemory_hasItBehind) {
  EXPECT_EQ(pciWindow64(3 * kGiB + 4096, 40), (Range{5 * kGiB, 64 * kGiB}));
  EXPECT_EQ(pciWindow64(64 * kGiB, 40), (Range{65 * kGiB, 64 * kGiB}));
}

TEST(PciWindow64, fewAddressBits_limitIt) {
  EXPECT_EQ(pciWindow64(kGiB, 36), (Range{4 * kGiB, 60 * kGiB}));
  EXPECT_EQ(pciWindow64(62 * kGiB, 36), (Range{63 * kGiB, kGiB}));
  EXPECT_FALSE(pciWindow64(63 * kGiB, 36));
  EXPECT_FALSE(pciWindow64(kGiB, 32));
  EXPECT_FALSE(pciWindow64(kGiB, 0));
}

TEST(PciWindow64, anySizeAndAddressBits_isBehindMemoryAndWithinReach) {
  for (std::uint32_t bits = 0; bits <= 255; ++bits) {
    for (const std::uint64_t bytes : {std::uint64_t{2} << 20, 3 * kGiB, 64 * kGiB, 1024 * kGiB}) {
      if (const auto window = pciWindow64(bytes, bits)) {
        EXPECT_GE(window->start, std::max(memoryRanges(bytes).back().end(), 4 * kGiB));
        EXPECT_GE(window->bytes, kGiB);
        EXPECT_LE(window->end() - 1, (std::uint64_t{1} << std::min(bits, 52U)) - 1);
      }
    }
  }
}

}  // namespace
}  // namespace vmmhost::kvm::arch
