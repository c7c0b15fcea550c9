#include "worker-kvm/devices/bus.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/support/refusal.h"
#include "vmmhost/error.h"

namespace vmmhost::kvm::devices {
namespace {

class Recorder final : public BusDevice {
 public:
  void read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override {
    data.front() = static_cast<std::uint8_t>(offset);
  }
  void write(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept override {
    lastOffset = offset;
    lastSize = data.size();
  }
  void reset() override { ++resets; }

  std::uint64_t lastOffset = 0;
  std::size_t lastSize = 0;
  int resets = 0;
};

TEST(Bus, access_reachesTheDeviceWithItsOffset) {
  PortBus bus;
  Recorder low;
  Recorder high;
  const Bus::Registration second(bus, 0x20, 8, high, "high");
  const Bus::Registration first(bus, 0x10, 16, low, "low");
  std::array<std::uint8_t, 2> data{};
  EXPECT_TRUE(bus.write(0x1e, data));
  EXPECT_EQ(low.lastOffset, 0xeU);
  EXPECT_EQ(low.lastSize, 2U);
  EXPECT_TRUE(bus.read(0x27, {data.data(), 1}));
  EXPECT_EQ(data[0], 7);
}

TEST(Bus, accessThatNothingAnswers_readsOnes) {
  MmioBus bus;
  Recorder device;
  const Bus::Registration registration(bus, 0x1000, 4, device, "device");
  std::array<std::uint8_t, 4> data{};
  EXPECT_FALSE(bus.read(0xfff, data));  // half inside
  EXPECT_EQ(data, (std::array<std::uint8_t, 4>{0xff, 0xff, 0xff, 0xff}));
  EXPECT_FALSE(bus.read(0x1002, data));
  EXPECT_FALSE(bus.write(0x1004, data));
  EXPECT_FALSE(bus.write(UINT64_MAX, data));
  EXPECT_EQ(device.lastSize, 0U);
}

TEST(Bus, overlappingRange_isRefusedAndBothAreNamed) {
  PortBus bus;
  Recorder device;
  const Bus::Registration registration(bus, 0x100, 8, device, "first");
  for (const auto& [start, bytes] : {std::pair{0x100, 8}, {0xf9, 8}, {0x107, 1}, {0x0, 0x1000}, {0x102, 2}}) {
    try {
      const Bus::Registration other(bus, start, bytes, device, "second");
      FAIL() << start;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kAlreadyExists);
      EXPECT_NE(error.message().find("second"), std::string::npos);
      EXPECT_NE(error.message().find("first (0x100 to 0x107)"), std::string::npos) << error.message();
    }
  }
  tests::expectRefusal("range of wraps is empty or overflows",
                       [&] { const Bus::Registration wraps(bus, UINT64_MAX, 2, device, "wraps"); });
  tests::expectRefusal("range of empty is empty or overflows",
                       [&] { const Bus::Registration empty(bus, 0, 0, device, "empty"); });
  const Bus::Registration before(bus, 0xf8, 8, device, "before");
  const Bus::Registration after(bus, 0x108, 8, device, "after");
}

TEST(Bus, endedRegistration_leavesTheRangeFree) {
  PortBus bus;
  Recorder device;
  std::array<std::uint8_t, 1> data{};
  {
    const Bus::Registration registration(bus, 0x10, 1, device, "device");
    EXPECT_TRUE(bus.read(0x10, data));
  }
  EXPECT_FALSE(bus.read(0x10, data));
  const Bus::Registration again(bus, 0x10, 1, device, "device");
}

TEST(Bus, deviceWithTwoRanges_isResetOnce) {
  PortBus bus;
  Recorder device;
  const Bus::Registration first(bus, 0x10, 1, device, "device");
  const Bus::Registration second(bus, 0x20, 1, device, "device");
  bus.resetDevices();
  EXPECT_EQ(device.resets, 1);
}

}  // namespace
}  // namespace vmmhost::kvm::devices
