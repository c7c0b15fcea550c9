#include "worker-kvm/devices/boot_timer.h"

#include <gtest/gtest.h>
#include <time.h>

#include <array>
#include <vector>

#include "worker-kvm/arch/x86_64/layout.h"

namespace vmmhost::kvm::devices {
namespace {

using namespace std::chrono_literals;

class BootTimerTest : public testing::Test, protected BootTimer::Sink {
 protected:
  void bootPhase(std::uint8_t value, std::chrono::nanoseconds monotonic) noexcept override {
    values_.push_back(value);
    times_.push_back(monotonic);
  }
  void write(std::uint8_t value) { EXPECT_TRUE(bus_.write(arch::kBootTimerPort, std::array<std::uint8_t, 1>{value})); }

  PortBus bus_;
  BootTimer timer_{bus_, *this};
  std::vector<std::uint8_t> values_;
  std::vector<std::chrono::nanoseconds> times_;
};

TEST_F(BootTimerTest, phase_isToldWithTheMonotonicTime) {
  const auto now = [] {
    timespec time{};
    EXPECT_EQ(::clock_gettime(CLOCK_MONOTONIC, &time), 0);
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
  };
  const auto before = now();
  write(BootTimer::kKernelStarted);
  const auto after = now();
  ASSERT_EQ(values_, std::vector<std::uint8_t>{0x40});
  EXPECT_GE(times_[0], before);
  EXPECT_LE(times_[0], after);
}

TEST_F(BootTimerTest, repeatedValue_isToldOnce) {
  for (int round = 0; round < 1000; ++round) {
    write(static_cast<std::uint8_t>(round % 3));
  }
  EXPECT_EQ(values_, (std::vector<std::uint8_t>{0, 1, 2}));
}

TEST_F(BootTimerTest, reset_beginsAnew) {
  write(BootTimer::kUserSpaceStarted);
  bus_.resetDevices();
  write(BootTimer::kUserSpaceStarted);
  EXPECT_EQ(values_, (std::vector<std::uint8_t>{0x41, 0x41}));
}

TEST_F(BootTimerTest, read_givesZero) {
  std::array<std::uint8_t, 1> value = {0xee};
  EXPECT_TRUE(bus_.read(arch::kBootTimerPort, value));
  EXPECT_EQ(value[0], 0);
}

}  // namespace
}  // namespace vmmhost::kvm::devices
