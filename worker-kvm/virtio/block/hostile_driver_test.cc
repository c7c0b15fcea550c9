// What drivers may do to a disk: several queues, resets in the middle of I/O, lies, and changes of mind.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "worker-kvm/virtio/block/test_disk.h"

namespace vmmhost::kvm::virtio::block::test {
namespace {

constexpr std::uint32_t kIn = 0;
constexpr std::uint32_t kOut = 1;
constexpr std::uint64_t kMiB = 1 << 20;

class HostileDriverTest : public ::testing::TestWithParam<Setting> {
 protected:
  bool make(const TestDisk::Options& options = {}) {
    disk_.emplace(GetParam(), options);
    return disk_->isThere();
  }
  // Waits for the next answer of a queue.
  void awaitUsed(std::size_t queue) { disk_->driver().queue(queue).nextUsed(disk_->driver().interrupts()); }

  std::optional<TestDisk> disk_;
};

#define MAKE_OR_SKIP(...)                                           \
  if (!make(__VA_ARGS__)) {                                         \
    GTEST_SKIP() << "this system has no such files or no io_uring"; \
  }

TEST_P(HostileDriverTest, queuesSideBySide_serveTheSameFile) {
  TestDisk::Options options;
  options.queues = 4;
  MAKE_OR_SKIP(options);
  std::vector<std::thread> drivers;
  for (std::size_t queue = 0; queue < 4; ++queue) {
    drivers.emplace_back([this, queue] {
      for (std::uint32_t i = 0; i < 100; ++i) {
        const std::uint64_t sector = queue * 1024 + i * 8;
        const Data data = pattern(4096, static_cast<std::uint32_t>(queue) * 1000 + i);
        disk_->offer(queue, queue, kOut, sector, data, 0);
        disk_->driver().queue(queue).notify();
        awaitUsed(queue);
        ASSERT_EQ(disk_->statusOf(queue), 0);
        disk_->offer(queue, queue, kIn, sector, {}, 4096);
        disk_->driver().queue(queue).notify();
        awaitUsed(queue);
        const auto got = disk_->dataOf(queue, 4096);
        ASSERT_EQ(std::memcmp(got.data(), data.data(), 4096), 0);
      }
    });
  }
  for (std::thread& driver : drivers) {
    driver.join();
  }
}

// After `done` nothing of the guest's memory may change, and the next driver begins anew.
TEST_P(HostileDriverTest, resetInTheMiddleOfIo_waitsForItAndTouchesNothingAfterwards) {
  TestDisk::Options options;
  options.queues = 2;
  MAKE_OR_SKIP(options);
  constexpr std::size_t kBytes = 64 * 1024;
  for (std::uint32_t round = 0; round < 30; ++round) {
    for (std::size_t slot = 0; slot < 40; ++slot) {
      const std::uint64_t sector = 256 * (slot % 16);
      if (slot % 2 == 0) {
        disk_->offer(slot % 2, slot, kIn, sector, {}, kBytes);
      } else if (slot % 3 == 0) {
        disk_->offer(slot % 2, slot, 13, 0, Data{0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0}, 0);
      } else {
        disk_->offer(slot % 2, slot, kOut, sector, pattern(kBytes, round), 0);
      }
    }
    disk_->driver().queue(0).notify();
    disk_->driver().queue(1).notify();
    if (round % 2 == 0) {
      awaitUsed(0);
    }
    disk_->stop();
    const Data mark(4096 + kBytes, 0x5a);
    for (std::size_t slot = 0; slot < 40; ++slot) {
      std::memcpy(disk_->driver().data(slot * TestDisk::kSlotBytes, mark.size()).data(), mark.data(), mark.size());
    }
    disk_->driver().queue(0).notify();  // nobody is there to hear it
    disk_->start();
    ASSERT_EQ(disk_->read(0, 512).status, 0);
    for (std::size_t slot = 1; slot < 40; ++slot) {
      const auto memory = disk_->driver().data(slot * TestDisk::kSlotBytes, mark.size());
      ASSERT_EQ(std::memcmp(memory.data(), mark.data(), mark.size()), 0) << slot;
    }
  }
}

TEST_P(HostileDriverTest, resetAtOnce_isDoneEvenIfNothingBegan) {
  MAKE_OR_SKIP();
  for (int round = 0; round < 200; ++round) {
    disk_->stop();
    disk_->start();
  }
  EXPECT_EQ(disk_->read(0, 512).status, 0);
}

TEST_P(HostileDriverTest, deviceThatGoesInTheMiddleOfIo_waitsForIt) {
  MAKE_OR_SKIP();
  for (std::size_t slot = 0; slot < 40; ++slot) {
    disk_->offer(0, slot, kIn, 0, {}, 512 * 1024, 512 * 1024);
  }
  disk_->driver().queue(0).notify();
  disk_->destroyDevice();
  const Data mark(TestDisk::kSlotBytes / 2, 0x5a);
  for (std::size_t slot = 0; slot < 40; ++slot) {
    std::memcpy(disk_->dataOf(slot, mark.size()).data(), mark.data(), mark.size());
  }
  for (std::size_t slot = 0; slot < 40; ++slot) {
    EXPECT_EQ(std::memcmp(disk_->dataOf(slot, mark.size()).data(), mark.data(), mark.size()), 0) << slot;
  }
}

// While the device works, the driver writes other requests over the same headers.
TEST_P(HostileDriverTest, headersThatChangeWhileTheyAreRead_areOneRequestOrTheOther) {
  MAKE_OR_SKIP();
  const Data data = pattern(4096, 1);
  ASSERT_EQ(disk_->write(1024, Data(4096, 0x11)), 0);
  std::atomic<bool> isEnough = false;
  std::thread liar([&] {
    auto& queue = disk_->driver().queue(0);
    std::mt19937 random(3);
    while (!isEnough) {
      for (std::size_t slot = 0; slot < 8; ++slot) {
        const std::uint32_t types[] = {kOut, 0, 4, 8, 99, 0xffffffff};
        const std::uint64_t sectors[] = {0, 8, 16384, ~std::uint64_t{0}, std::uint64_t{1} << 62};
        queue.put<std::uint32_t>(TestDisk::at(slot), types[random() % 6]);
        queue.put<std::uint64_t>(TestDisk::at(slot) + 8, sectors[random() % 5]);
      }
    }
  });
  for (int round = 0; round < 300; ++round) {
    for (std::size_t slot = 0; slot < 8; ++slot) {
      disk_->offer(0, slot, kOut, 8, data, 0);
    }
    disk_->driver().queue(0).notify();
    for (std::size_t slot = 0; slot < 8; ++slot) {
      awaitUsed(0);
    }
    for (std::size_t slot = 0; slot < 8; ++slot) {
      ASSERT_LE(disk_->statusOf(slot), 2);
    }
  }
  isEnough = true;
  liar.join();
  EXPECT_EQ(disk_->read(1024, 4096).data, Data(4096, 0x11)) << "no request was for this";
  EXPECT_EQ(disk_->driver().interrupts().brokenReason(), "");
}

TEST_P(HostileDriverTest, requestWithoutRoomForAStatus_breaksTheDeviceUntilItsReset) {
  MAKE_OR_SKIP();
  auto& queue = disk_->driver().queue(0);
  disk_->offer(0, 1, kIn, 0, {}, 512);
  queue.offer({{TestDisk::at(0), 16, false}});
  queue.notify();
  EXPECT_TRUE(disk_->driver().interrupts().waitForBroken());
  awaitUsed(0);  // what came before is answered
  EXPECT_EQ(disk_->statusOf(1), 0);
  disk_->stop();
  disk_->start();
  EXPECT_EQ(disk_->read(0, 512).status, 0);
}

TEST_P(HostileDriverTest, chainThatNeverEnds_breaksTheDeviceUntilItsReset) {
  MAKE_OR_SKIP();
  auto& queue = disk_->driver().queue(0);
  const std::uint64_t table = queue.layout().descriptorTable;
  queue.put<std::uint64_t>(table, TestDisk::at(0));
  queue.put<std::uint32_t>(table + 8, 16);
  queue.put<std::uint16_t>(table + 12, 1);
  queue.put<std::uint16_t>(table + 14, 0);
  queue.offerHead(0);
  queue.notify();
  EXPECT_TRUE(disk_->driver().interrupts().waitForBroken());
  disk_->stop();
  disk_->start();
  EXPECT_EQ(disk_->read(0, 512).status, 0);
}

// More under way than descriptors, since all of it is the same chain.
TEST_P(HostileDriverTest, oneChainOfferedAgainAndAgain_isAnsweredEachTime) {
  MAKE_OR_SKIP();
  auto& queue = disk_->driver().queue(0);
  const std::uint16_t head = disk_->offer(0, 0, kIn, 0, {}, 256 * 1024);
  queue.notify();
  awaitUsed(0);
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < 128; ++i) {
      queue.offerHead(head);
    }
    queue.notify();
    for (int i = 0; i < 128; ++i) {
      awaitUsed(0);
    }
    ASSERT_EQ(disk_->statusOf(0), 0);
  }
}

// A driver that keeps the queue full must not keep the thread from a reset.
TEST_P(HostileDriverTest, driverThatNeverStops_canBeStopped) {
  MAKE_OR_SKIP();
  auto& queue = disk_->driver().queue(0);
  const std::uint16_t head = disk_->offer(0, 0, 4, 0, {}, 0);  // flush
  queue.notify();
  awaitUsed(0);
  std::atomic<bool> isEnough = false;
  std::thread driver([&] {
    std::uint16_t offered = queue.usedIndex();
    while (!isEnough) {
      if (static_cast<std::uint16_t>(offered - queue.usedIndex()) < 100) {
        queue.offerHead(head);
        ++offered;
      }
      queue.notify();
    }
  });
  disk_->stop();  // returns, while the driver goes on
  const std::uint16_t used = queue.usedIndex();
  for (int i = 0; i < 1000; ++i) {
    queue.notify();
  }
  EXPECT_EQ(queue.usedIndex(), used) << "nothing is answered any more";
  isEnough = true;
  driver.join();
  EXPECT_EQ(queue.usedIndex(), used);
  disk_->start();
  EXPECT_EQ(disk_->read(0, 512).status, 0);
}

INSTANTIATE_TEST_SUITE_P(Block, HostileDriverTest,
                         ::testing::Values(Setting{How::kRing, Place::kDisk}, Setting{How::kCalls, Place::kDisk},
                                           Setting{How::kRing, Place::kMemory}, Setting{How::kCalls, Place::kMemory},
                                           Setting{How::kRing, Place::kDiskPastCache},
                                           Setting{How::kCalls, Place::kDiskPastCache}),
                         [](const auto& info) { return nameOf(info.param); });

}  // namespace
}  // namespace vmmhost::kvm::virtio::block::test
