#include "worker-kvm/pci/msix.h"

#include <gtest/gtest.h>

#include <cstring>

#include "worker-kvm/pci/test_vectors.h"

namespace vmmhost::kvm::pci {
namespace {

constexpr std::uint16_t kEnable = 0x8000, kFunctionMask = 0x4000;

class MsixTest : public ::testing::Test {
 protected:
  void write(std::uint64_t offset, std::uint32_t value) {
    std::array<std::uint8_t, 4> bytes;
    std::memcpy(bytes.data(), &value, 4);
    msix_.writeTable(offset, bytes);
  }
  std::uint32_t read(std::uint64_t offset) {
    std::uint32_t value = 0;
    msix_.readTable(offset, {reinterpret_cast<std::uint8_t*>(&value), 4});
    return value;
  }
  std::uint64_t pending() {
    std::uint64_t value = 0;
    msix_.readPending(0, {reinterpret_cast<std::uint8_t*>(&value), 8});
    return value;
  }
  void program(unsigned vector, std::uint32_t data) {
    write(vector * 16, 0xfee01000);
    write(vector * 16 + 8, data);
    write(vector * 16 + 12, 0);
  }

  test::Vectors vectors_;
  Msix msix_{vectors_, 3};
};

TEST_F(MsixTest, entryIsConnected_onlyEnabledAndUnmasked) {
  program(1, 0x41);
  EXPECT_FALSE(vectors_.at(1).message) << "MSI-X is not enabled";
  msix_.setControl(kEnable | kFunctionMask);
  EXPECT_FALSE(vectors_.at(1).message);
  msix_.setControl(kEnable);
  ASSERT_TRUE(vectors_.at(1).message);
  EXPECT_EQ(*vectors_.at(1).message, std::pair(std::uint64_t{0xfee01000}, std::uint32_t{0x41}));
  EXPECT_FALSE(vectors_.at(0).message) << "masked from the start";
  write(16 + 12, 1);
  EXPECT_FALSE(vectors_.at(1).message);
}

TEST_F(MsixTest, unchangedEntry_isNotConnectedAgain) {
  msix_.setControl(kEnable);
  program(0, 0x41);
  const unsigned before = vectors_.at(0).connects;
  program(0, 0x41);
  EXPECT_EQ(vectors_.at(0).connects, before);
  write(8, 0x42);
  EXPECT_EQ(vectors_.at(0).connects, before + 1);
}

TEST_F(MsixTest, signalWhileMasked_isPendingUntilReset) {
  msix_.setControl(kEnable);
  msix_.signal(2);
  EXPECT_EQ(pending(), 4u);
  program(2, 0x43);
  EXPECT_EQ(pending(), 0u) << "connected: the kernel has it";
  write(2 * 16 + 12, 1);
  msix_.signal(2);
  EXPECT_EQ(pending(), 4u);
  msix_.reset();
  EXPECT_EQ(pending(), 0u);
  EXPECT_EQ(read(2 * 16 + 12), 1u);
  EXPECT_FALSE(vectors_.at(2).message);
}

TEST_F(MsixTest, signalOfNoVector_doesNothing) {
  msix_.signal(kNoVector);
  msix_.signal(3);
  EXPECT_EQ(pending(), 0u);
}

TEST_F(MsixTest, accessesThatAreNone_readOnesAndChangeNothing) {
  std::array<std::uint8_t, 2> two{};
  msix_.readTable(0, two);
  EXPECT_EQ(two[0], 0xff);
  msix_.writeTable(12, std::array<std::uint8_t, 1>{0});
  EXPECT_EQ(read(12), 1u);
  EXPECT_EQ(read(3 * 16), 0xffffffffu);
  write(3 * 16, 1);
  std::array<std::uint8_t, 8> eight{0, 0x10, 0xe0, 0xfe, 1, 0, 0, 0};
  msix_.writeTable(0, eight);
  EXPECT_EQ(read(0), 0xfee01000u);
  EXPECT_EQ(read(4), 1u);
}

}  // namespace
}  // namespace vmmhost::kvm::pci
