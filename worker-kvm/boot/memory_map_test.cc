#include "worker-kvm/boot/memory_map.h"

#include <gtest/gtest.h>

#include "worker-kvm/arch/x86_64/layout.h"

namespace vmmhost::kvm::boot {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

TEST(MemoryMap, smallMemory_hasThePcHoleAndTheReservedConfigurationSpace) {
  const std::vector<MapEntry> expected = {
      {{0, 0x9fc00}, MapType::kUsable},
      {{0x9fc00, 0x60400}, MapType::kReserved},
      {{kMiB, 127 * kMiB}, MapType::kUsable},
      {{0xe8000000, kMiB}, MapType::kReserved},
  };
  EXPECT_EQ(memoryMap(arch::memoryRanges(128 * kMiB)), expected);
}

TEST(MemoryMap, memoryBeyondTheGap_isUsableFrom4GiB) {
  const auto map = memoryMap(arch::memoryRanges(64 * kGiB));
  ASSERT_EQ(map.size(), 5U);
  EXPECT_EQ(map[2].range, (memory::Range{kMiB, 3 * kGiB - kMiB}));
  EXPECT_EQ(map[4], (MapEntry{{4 * kGiB, 61 * kGiB}, MapType::kUsable}));
}

TEST(MemoryMap, anySize_isAscendingAndAddsUpToMemoryWithoutTheHole) {
  for (const std::uint64_t bytes : {2 * kMiB, 3 * kGiB, 3 * kGiB + 4096, 5 * kGiB}) {
    const auto map = memoryMap(arch::memoryRanges(bytes));
    std::uint64_t usable = 0;
    for (std::size_t index = 0; index < map.size(); ++index) {
      usable += map[index].type == MapType::kUsable ? map[index].range.bytes : 0;
      if (index > 0) {
        EXPECT_GE(map[index].range.start, map[index - 1].range.end());
      }
    }
    EXPECT_EQ(usable, bytes - (kMiB - 0x9fc00));
  }
}

}  // namespace
}  // namespace vmmhost::kvm::boot
