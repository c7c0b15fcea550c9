#include "worker-kvm/devices/io_apic.h"

#include <gtest/gtest.h>

#include "worker-kvm/pci/test_vectors.h"

namespace vmmhost::kvm::devices {
namespace {

class IoApicTest : public ::testing::Test {
 protected:
  IoApicTest() : vector_(vectors_.makeVector()) { apic_.attach(4, *vector_); }
  void select(std::uint8_t reg) { put(0x00, reg); }
  void put(std::uint64_t offset, std::uint32_t value) {
    bus_.write(arch::kIoApicStart + offset, {reinterpret_cast<std::uint8_t*>(&value), 4});
  }
  std::uint32_t get(std::uint8_t reg) {
    select(reg);
    std::uint32_t value = 0;
    bus_.read(arch::kIoApicStart + 0x10, {reinterpret_cast<std::uint8_t*>(&value), 4});
    return value;
  }
  void set(std::uint8_t reg, std::uint32_t value) {
    select(reg);
    put(0x10, value);
  }

  MmioBus bus_;
  pci::test::Vectors vectors_;
  std::unique_ptr<MessageVector> vector_;
  IoApic apic_{bus_};
};

TEST_F(IoApicTest, version_tellsTwentyFourPins) {
  EXPECT_EQ(get(1) >> 16, 23u);
}

TEST_F(IoApicTest, pinIsMaskedUntilItsEntryIsNot) {
  EXPECT_EQ(get(0x18), 0x10000u);
  set(0x19, 3u << 24);
  set(0x18, 0x10031);
  EXPECT_FALSE(vectors_.at(0).message);
  set(0x18, 0x00031);
  ASSERT_TRUE(vectors_.at(0).message);
  EXPECT_EQ(*vectors_.at(0).message, std::pair(std::uint64_t{0xfee03000}, std::uint32_t{0x31}));
  set(0x18, 0x10031);
  EXPECT_FALSE(vectors_.at(0).message);
}

TEST_F(IoApicTest, logicalDestinationAndDelivery_areInTheMessage) {
  const auto message = IoApic::messageOf(std::uint64_t{0x0f} << 56 | 1 << 11 | 1 << 8 | 0x55);
  EXPECT_EQ(message.address, 0xfee0f004u);
  EXPECT_EQ(message.data, 0x155u);
}

TEST_F(IoApicTest, registersThatAreNone_readZeroAndTakeNothing) {
  set(0x40, 0xffffffff);
  set(0xff, 0xffffffff);
  EXPECT_EQ(get(0x40), 0u);
  EXPECT_EQ(get(3), 0u);
}

TEST_F(IoApicTest, reset_masksAll) {
  set(0x18, 0x31);
  apic_.reset();
  EXPECT_FALSE(vectors_.at(0).message);
  EXPECT_EQ(get(0x18), 0x10000u);
}

}  // namespace
}  // namespace vmmhost::kvm::devices
