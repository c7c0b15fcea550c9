#include "worker-kvm/virtio/rng/rng_device.h"

#include <asm/unistd.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <future>
#include <optional>
#include <string>
#include <thread>

#include "worker-kvm/virtio/test_driver.h"

namespace vmmhost::kvm::virtio::rng {
namespace {

using test::Driver;

class RngDeviceTest : public ::testing::Test {
 protected:
  RngDeviceTest() { ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); }

  void make(Fd source = {}) {
    confine::Rules rules = RngDevice::rules(source.get());
    for (const int descriptor : driver_.interrupts().descriptors()) {
      rules.push_back(confine::callOn(__NR_write, descriptor));
    }
    thread_.emplace("devices", rules);
    device_.emplace(*thread_, RngOptions{"rng0", std::move(source)});
    device_->connect(driver_.interrupts());
    driver_.start(*device_, device_->features(), kQueueSize);
  }
  // How many bytes came.
  std::uint32_t ask(const std::vector<test::Part>& parts) {
    driver_.queue(0).offer(parts);
    driver_.queue(0).notify();
    return driver_.queue(0).nextUsed(driver_.interrupts()).bytes;
  }
  bool isZero(std::uint64_t offset, std::size_t bytes) {
    const auto data = driver_.data(offset, bytes);
    return std::all_of(data.begin(), data.end(), [](std::uint8_t byte) { return byte == 0; });
  }

  Driver driver_{1};
  std::optional<io::EventThread> thread_;
  std::optional<RngDevice> device_;
};

TEST_F(RngDeviceTest, whatTheDriverGives_isFilledAndNothingElse) {
  make();
  EXPECT_EQ(ask({{Driver::kData, 64, true}, {Driver::kData + 256, 100, true}}), 164u);
  EXPECT_FALSE(isZero(0, 64));
  EXPECT_FALSE(isZero(256, 100));
  EXPECT_TRUE(isZero(64, 192));
  EXPECT_TRUE(isZero(356, 4096));
}

TEST_F(RngDeviceTest, requests_areBounded) {
  make();
  EXPECT_EQ(ask({{Driver::kData, 1 << 20, true}, {Driver::kData + (2 << 20), 16, true}}), kMaxRequestBytes);
  EXPECT_FALSE(isZero(kMaxRequestBytes - 16, 16));
  EXPECT_TRUE(isZero(kMaxRequestBytes, 4096));
  EXPECT_TRUE(isZero(2 << 20, 16));
}

TEST_F(RngDeviceTest, twoRequests_areNotTheSame) {
  make();
  EXPECT_EQ(ask({{Driver::kData, 64, true}}), 64u);
  EXPECT_EQ(ask({{Driver::kData + 64, 64, true}}), 64u);
  EXPECT_NE(std::memcmp(driver_.data(0, 64).data(), driver_.data(64, 64).data(), 64), 0);
}

TEST_F(RngDeviceTest, requestThatOnlyReads_getsNothing) {
  make();
  EXPECT_EQ(ask({{Driver::kData, 64, false}}), 0u);
  EXPECT_TRUE(isZero(0, 64));
}

TEST_F(RngDeviceTest, manyRequestsAtOnce_areAllAnswered) {
  make();
  for (std::uint64_t i = 0; i < kQueueSize; ++i) {
    driver_.queue(0).offer({{Driver::kData + 1024 * i, 1024, true}});
  }
  driver_.queue(0).notify();
  for (std::uint64_t i = 0; i < kQueueSize; ++i) {
    EXPECT_EQ(driver_.queue(0).nextUsed(driver_.interrupts()).bytes, 1024u);
    EXPECT_FALSE(isZero(1024 * i, 1024));
  }
}

TEST_F(RngDeviceTest, sourceThatRunsDry_isCompletedByTheKernel) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  const Fd writer(ends[1]);
  const std::string known(40, 'k');
  ASSERT_EQ(::write(writer.get(), known.data(), known.size()), 40);
  make(Fd(ends[0]));
  EXPECT_EQ(ask({{Driver::kData, 104, true}}), 104u);
  const auto got = driver_.data(0, 40);
  EXPECT_EQ(std::string(got.begin(), got.end()), known);
  EXPECT_FALSE(isZero(40, 64));
}

TEST_F(RngDeviceTest, brokenQueue_isReportedAndMendedByAReset) {
  make();
  driver_.queue(0).offerHead(kQueueSize);
  driver_.queue(0).notify();
  EXPECT_TRUE(driver_.interrupts().waitForBroken());
  driver_.stop();
  driver_.start(*device_, device_->features(), kQueueSize);
  EXPECT_EQ(ask({{Driver::kData, 64, true}}), 64u);
}

TEST_F(RngDeviceTest, resetsUnderLoad_touchNothingAfterwards) {
  make();
  for (int round = 0; round < 100; ++round) {
    for (std::uint64_t i = 0; i < kQueueSize; ++i) {
      driver_.queue(0).offer({{Driver::kData, 4096, true}});
    }
    driver_.queue(0).notify();
    driver_.stop();
    const auto data = driver_.data(0, 4096);
    std::fill(data.begin(), data.end(), std::uint8_t{0});
    driver_.queue(0).notify();
    std::promise<void> turn;
    thread_->post([&turn] { turn.set_value(); });
    turn.get_future().wait();
    ASSERT_TRUE(isZero(0, 4096));
    driver_.start(*device_, device_->features(), kQueueSize);
  }
}

// The thread is shared: it goes on without the device.
TEST_F(RngDeviceTest, deviceThatGoesUnderLoad_leavesTheThreadToOthers) {
  make();
  for (std::uint64_t i = 0; i < kQueueSize; ++i) {
    driver_.queue(0).offer({{Driver::kData, 65536, true}});
  }
  driver_.queue(0).notify();
  device_.reset();
  std::promise<void> turn;
  thread_->post([&turn] { turn.set_value(); });
  EXPECT_EQ(turn.get_future().wait_for(test::kDeadline), std::future_status::ready);
}

// A driver that asks without end must not keep the others of the thread from their turn.
TEST_F(RngDeviceTest, driverThatNeverStops_leavesTurnsToOthers) {
  make();
  auto& queue = driver_.queue(0);
  const std::uint16_t head = queue.offer({{Driver::kData, 65536, true}});
  std::atomic<bool> isEnough = false;
  std::thread driver([&] {
    std::uint16_t offered = 1;
    while (!isEnough) {
      if (static_cast<std::uint16_t>(offered - queue.usedIndex()) < kQueueSize) {
        queue.offerHead(head);
        ++offered;
      }
      queue.notify();
    }
  });
  for (int i = 0; i < 10; ++i) {
    std::promise<void> turn;
    const auto begin = std::chrono::steady_clock::now();
    thread_->post([&turn] { turn.set_value(); });
    turn.get_future().wait();
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(1));
  }
  isEnough = true;
  driver.join();
}

}  // namespace
}  // namespace vmmhost::kvm::virtio::rng
