#include "worker-kvm/boot/linux64.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>

#include "tests/support/refusal.h"
#include "vmmhost/error.h"
#include "worker-kvm/arch/x86_64/layout.h"
#include "worker-kvm/boot/bytes_source.h"
#include "worker-kvm/boot/test_bzimage.h"

namespace vmmhost::kvm::boot {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

class Linux64Test : public testing::Test {
 protected:
  template <typename Value>
  Value at(std::uint64_t address) const {
    Value value;
    std::memcpy(&value, memory_.require(address, sizeof value, "test").data(), sizeof value);
    return value;
  }
  // A field of the zero page.
  template <typename Value>
  Value field(std::uint64_t offset) const {
    return at<Value>(arch::kZeroPage + offset);
  }
  // Where an address is by the page tables, or nothing.
  std::optional<std::uint64_t> translate(std::uint64_t address) const {
    std::uint64_t table = arch::kPageMapLevel4;
    for (const int shift : {39, 30, 21}) {
      const auto entry = at<std::uint64_t>(table + (address >> shift & 511) * 8);
      if ((entry & 3) != 3) {
        return std::nullopt;
      }
      table = entry & ~std::uint64_t{0xfff};
      if ((entry & 0x80) != 0) {
        return table | (address & ((std::uint64_t{1} << shift) - 1));
      }
    }
    return std::nullopt;
  }

  memory::GuestMemory memory_{arch::memoryRanges(4 * kMiB)};
};

TEST_F(Linux64Test, zeroPageOfBzImage_hasItsHeaderAndWhatALoaderFillsIn) {
  const BzImage image = parseBzImage(BytesSource(TestBzImage().bytes()));
  const std::array<MapEntry, 2> map = {
      {{{0, 0x9fc00}, MapType::kUsable}, {{0xe8000000, 0x100000}, MapType::kReserved}}};
  writeZeroPage({image.setupHeader, 12, memory::Range{0x300000, 5000}, 0xe0000, map}, memory_);
  EXPECT_EQ(field<std::uint32_t>(0x202), 0x53726448U);
  EXPECT_EQ(field<std::uint16_t>(0x206), 0x020f);
  EXPECT_EQ(field<std::uint64_t>(0x258), 16 * kMiB);
  EXPECT_EQ(field<std::uint8_t>(0x1ef), 0);     // the sentinel: a loader that cleared what it did not know
  EXPECT_EQ(field<std::uint8_t>(0x210), 0xff);  // type_of_loader
  EXPECT_EQ(field<std::uint8_t>(0x211), 0x01);  // loadflags: none of a loader's bits
  EXPECT_EQ(field<std::uint16_t>(0x1fa), 0xffff);
  EXPECT_EQ(field<std::uint32_t>(0x218), 0x300000U);
  EXPECT_EQ(field<std::uint32_t>(0x21c), 5000U);
  EXPECT_EQ(field<std::uint32_t>(0x228), arch::kCommandLine);
  EXPECT_EQ(field<std::uint32_t>(0x238), 12U);
  EXPECT_EQ(field<std::uint64_t>(0x070), 0xe0000U);
  EXPECT_EQ(field<std::uint8_t>(0x1e8), 2);
  EXPECT_EQ(field<std::uint64_t>(0x2d8), 0x9fc00U);
  EXPECT_EQ(field<std::uint32_t>(0x2e0), 1U);
  EXPECT_EQ(field<std::uint64_t>(0x2e4), 0xe8000000U);
  EXPECT_EQ(field<std::uint32_t>(0x2f4), 2U);
}

TEST_F(Linux64Test, zeroPageOfElf_saysWhatKernelsLookAt) {
  writeZeroPage({{}, 3, std::nullopt, 0, {}}, memory_);
  EXPECT_EQ(field<std::uint16_t>(0x1fe), 0xaa55);
  EXPECT_EQ(field<std::uint32_t>(0x202), 0x53726448U);
  EXPECT_EQ(field<std::uint8_t>(0x211), 0x01);
  EXPECT_EQ(field<std::uint64_t>(0x218), 0U);  // no initrd
  EXPECT_EQ(field<std::uint64_t>(0x070), 0U);
}

TEST_F(Linux64Test, secondZeroPage_keepsNothingOfTheFirst) {
  const std::array<MapEntry, 1> map = {{{{0, 0x9fc00}, MapType::kUsable}}};
  memory_.write(arch::kZeroPage + 0xfff, std::array<std::uint8_t, 1>{7}, "dirt");
  writeZeroPage({{}, 3, memory::Range{0x300000, 5000}, 0xe0000, map}, memory_);
  writeZeroPage({{}, 3, std::nullopt, 0, {}}, memory_);
  EXPECT_EQ(field<std::uint8_t>(0xfff), 0);
  EXPECT_EQ(field<std::uint32_t>(0x21c), 0U);
  EXPECT_EQ(field<std::uint64_t>(0x2d8), 0U);
}

TEST_F(Linux64Test, moreThanTheZeroPageHolds_isRefused) {
  const std::vector<MapEntry> map(129);
  constexpr char kWhy[] = "the zero page has no room for what it is to say";
  tests::expectRefusal(kWhy, [&] { writeZeroPage({{}, 3, std::nullopt, 0, map}, memory_); });
  const std::vector<std::uint8_t> header(setup::kMaxBytes + 1);
  tests::expectRefusal(kWhy, [&] { writeZeroPage({header, 3, std::nullopt, 0, {}}, memory_); });
}

TEST_F(Linux64Test, pageTables_mapTheFirst4GiBOneToOne) {
  writeLongModeTables(memory_);
  for (const std::uint64_t address :
       {0x0UL, 0x7123UL, 0x1000200UL, 0x3fffffffUL, 0x40000000UL, 0xbfffffffUL, 0xfee00020UL, 0xffffffffUL}) {
    EXPECT_EQ(translate(address), address);
  }
  EXPECT_FALSE(translate(0x100000000));
  EXPECT_FALSE(translate(0x8000000000));
}

TEST_F(Linux64Test, descriptors_areFlatCodeAndData) {
  writeLongModeTables(memory_);
  EXPECT_EQ(at<std::uint64_t>(arch::kGdt + arch::kBootCodeSelector), 0x00af9b000000ffffU);
  EXPECT_EQ(at<std::uint64_t>(arch::kGdt + arch::kBootDataSelector), 0x00cf93000000ffffU);
}

}  // namespace
}  // namespace vmmhost::kvm::boot
