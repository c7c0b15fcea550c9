#include "worker-kvm/memory/guest_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <utility>

#include "tests/support/refusal.h"
#include "vmmhost/error.h"
#include "vmmhost/memory_file.h"
#include "worker-kvm/arch/x86_64/layout.h"

namespace vmmhost::kvm::memory {
namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

TEST(Part, refusesWhatLeavesTheWhole) {
  std::array<std::uint8_t, 16> bytes{};
  EXPECT_EQ(part(bytes, 0, 16)->size(), 16U);
  EXPECT_EQ(part(bytes, 16, 0)->size(), 0U);
  EXPECT_FALSE(part(bytes, 17, 0));
  EXPECT_FALSE(part(bytes, 8, 9));
  EXPECT_FALSE(part(bytes, 8, UINT64_MAX));
  EXPECT_FALSE(part(bytes, UINT64_MAX, 8));
}

TEST(MemoryRanges, leaveTheDeviceGapOut) {
  EXPECT_EQ(arch::memoryRanges(3 * kGiB), (std::vector<Range>{{0, 3 * kGiB}}));
  EXPECT_EQ(arch::memoryRanges(3 * kGiB + 4096), (std::vector<Range>{{0, 3 * kGiB}, {4 * kGiB, 4096}}));
}

TEST(GuestMemory, accessAcrossRegionsOrIntoTheGap_isRefused) {
  const std::array<Range, 2> ranges = {Range{0, 8192}, Range{0x10000, 4096}};
  GuestMemory memory(ranges);
  EXPECT_EQ(memory.totalBytes(), 12288U);
  EXPECT_TRUE(memory.at(8191, 1));
  EXPECT_FALSE(memory.at(8191, 2));
  EXPECT_FALSE(memory.at(9000, 1));
  EXPECT_TRUE(memory.at(0x10000, 4096));
  EXPECT_FALSE(memory.at(0xffff, 2));
  EXPECT_FALSE(memory.at(UINT64_MAX, 2));
  try {
    memory.require(9000, 1, "the thing");
    FAIL() << "was given";
  } catch (const Error& error) {
    EXPECT_NE(error.message().find("the thing at 0x2328"), std::string::npos) << error.message();
  }
}

TEST(GuestMemory, whatIsWritten_isReadAtTheSameAddress) {
  const std::array<Range, 2> ranges = {Range{0, 8192}, Range{0x10000, 4096}};
  GuestMemory memory(ranges);
  const std::array<std::uint8_t, 3> data = {1, 2, 3};
  memory.write(0x10ffd, data, "data");
  EXPECT_EQ((*memory.at(0x10fff, 1))[0], 3);
}

TEST(GuestMemory, rangesOfAFile_areInItOneBehindTheOther) {
  const std::array<Range, 2> ranges = {Range{0, 8192}, Range{4 * kGiB, 4096}};
  GuestMemory memory(ranges, makeMemoryFile("test", 12288));
  ASSERT_GE(memory.file(), 0);
  const std::array<std::uint8_t, 1> low = {42};
  const std::array<std::uint8_t, 1> high = {43};
  memory.write(5000, low, "data");
  memory.write(4 * kGiB + 1, high, "data");
  std::uint8_t seen = 0;
  EXPECT_EQ(::pread(memory.file(), &seen, 1, 5000), 1);
  EXPECT_EQ(seen, 42);
  EXPECT_EQ(::pread(memory.file(), &seen, 1, 8193), 1);
  EXPECT_EQ(seen, 43);
}

TEST(MemoryFile, cannotChangeItsSizeNorItsSeals) {
  const Fd file = makeMemoryFile("test", 8192);
  for (const off_t bytes : {4096, 16384}) {
    errno = 0;
    EXPECT_NE(::ftruncate(file.get(), bytes), 0);
    EXPECT_EQ(errno, EPERM) << bytes;
  }
  errno = 0;
  EXPECT_EQ(::pwrite(file.get(), "x", 1, 8192), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_NE(::fcntl(file.get(), F_ADD_SEALS, F_SEAL_WRITE), 0);
  EXPECT_EQ(errno, EPERM);
}

TEST(GuestMemory, everyRange_beginsWhereHugePagesDo) {
  for (const bool shared : {false, true}) {
    const std::array<Range, 3> ranges = {Range{0, 4096}, Range{0x200000, 12288}, Range{4 * kGiB, 4096}};
    GuestMemory memory(ranges, shared ? makeMemoryFile("test", 20480) : Fd());
    for (const auto& region : memory.regions()) {
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(region.host.data()) % (2 << 20), 0U);
      region.host.front() = region.host.back() = 1;  // all of it is there
    }
  }
}

TEST(GuestMemory, byteBelow2MiB_takesAPageAndNoHugeOne) {
  constexpr std::size_t kHugePage = std::size_t{2} << 20;
  const std::array<Range, 1> ranges = {Range{0, 4 * kHugePage}};
  GuestMemory memory(ranges);
  const Bytes all = memory.regions().front().host;
  all[100] = 1;
  std::array<unsigned char, kHugePage / 4096> pages{};
  ASSERT_EQ(::mincore(all.data(), kHugePage, pages.data()), 0);
  EXPECT_LT(std::count(pages.begin(), pages.end(), 1), 64);  // some kernels have larger pages on their own
}

TEST(GuestMemory, clearing_takesExactlyWhatItIsTold) {
  constexpr std::size_t kMiB = std::size_t{1} << 20;
  for (const bool shared : {false, true}) {
    const std::array<Range, 1> ranges = {Range{0, 8 * kMiB}};
    GuestMemory memory(ranges, shared ? makeMemoryFile("test", 8 * kMiB) : Fd());
    const Bytes all = memory.regions().front().host;
    for (const auto& [start, bytes] : {std::pair<std::size_t, std::size_t>{100, 200},
                                       {2 * kMiB, 2 * kMiB},
                                       {2 * kMiB - 1, 4 * kMiB + 2},
                                       {4 * kMiB + 1, 2 * kMiB},
                                       {0, 8 * kMiB},
                                       {5, 0}}) {
      std::fill(all.begin(), all.end(), std::uint8_t{7});
      memory.clear(all.subspan(start, bytes));
      const auto isAll = [](Bytes part, std::uint8_t wanted) {
        return std::all_of(part.begin(), part.end(), [wanted](std::uint8_t byte) { return byte == wanted; });
      };
      const std::string what =
          std::to_string(bytes) + " bytes at " + std::to_string(start) + (shared ? ", shared" : ", private");
      EXPECT_TRUE(isAll(all.first(start), 7)) << what;
      EXPECT_TRUE(isAll(all.subspan(start, bytes), 0)) << what;
      EXPECT_TRUE(isAll(all.subspan(start + bytes), 7)) << what;
    }
  }
}

TEST(GuestMemory, moreThanTheSystemHas_isAnErrorAndNotAnAbort) {
  const std::array<Range, 2> ranges = {Range{0, 4096}, Range{4096, std::uint64_t{1} << 56}};
  tests::expectRefusal("mapping 72057594037927936 bytes of guest memory", [&] { const GuestMemory memory(ranges); });
}

}  // namespace
}  // namespace vmmhost::kvm::memory
