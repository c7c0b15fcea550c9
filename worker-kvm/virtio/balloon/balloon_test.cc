#include "worker-kvm/virtio/balloon/balloon.h"

#include <asm/unistd.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "tests/support/refusal.h"
#include "vmmhost/error.h"
#include "worker-kvm/virtio/balloon/pages.h"
#include "worker-kvm/virtio/test_driver.h"

namespace vmmhost::kvm::virtio::balloon {
namespace {

using virtio::test::Driver;

constexpr std::uint64_t kAgreed = kIndirectDesc | kEventIdx;
constexpr std::uint64_t kNumbers = 0;                          // where page numbers are written, behind Driver::kData
constexpr std::uint32_t kFirstPage = (16 << 20) / kPageBytes;  // of those that are played with

class BalloonTest : public ::testing::TestWithParam<bool> {
 protected:
  BalloonTest() { ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); }
  ~BalloonTest() override { balloon_.reset(); }

  bool isShared() const { return GetParam(); }
  void make(BalloonOptions options = {}) {
    driver_ = std::make_unique<Driver>(5, isShared());
    auto rules = Balloon::rulesFor(driver_->memory());
    for (const int descriptor : driver_->interrupts().descriptors()) {
      rules.push_back(confine::callOn(__NR_write, descriptor));
    }
    thread_ = std::make_unique<io::EventThread>("test", rules);
    balloon_ = std::make_unique<Balloon>(*thread_, driver_->memory(), std::move(options));
    balloon_->connect(driver_->interrupts());
  }
  // Names pages on a queue, and waits until they were dealt with.
  void name(std::size_t queue, const std::vector<std::uint32_t>& numbers) {
    const std::size_t bytes = numbers.size() * sizeof(std::uint32_t);
    std::memcpy(driver_->data(kNumbers, bytes).data(), numbers.data(), bytes);
    driver_->queue(queue).offer({{Driver::kData + kNumbers, static_cast<std::uint32_t>(bytes), false}});
    driver_->queue(queue).notifyIfWanted();
    driver_->queue(queue).nextUsed(driver_->interrupts());
  }
  memory::Bytes page(std::uint32_t number, std::uint32_t count = 1) {
    return driver_->memory().require(number * kPageBytes, count * kPageBytes, "test");
  }
  void fill(std::uint32_t first, std::uint32_t count) {
    const auto bytes = page(first, count);
    std::fill(bytes.begin(), bytes.end(), std::uint8_t{0xaa});
  }
  // How many of these pages take memory of the system.
  std::size_t resident(std::uint32_t first, std::uint32_t count) {
    std::vector<unsigned char> states(count);
    EXPECT_EQ(::mincore(page(first, count).data(), count * kPageBytes, states.data()), 0);
    return static_cast<std::size_t>(std::count_if(states.begin(), states.end(), [](auto state) { return state & 1; }));
  }
  std::vector<std::uint32_t> config() {
    std::vector<std::uint8_t> bytes(8);
    balloon_->readConfig(0, bytes);
    std::vector<std::uint32_t> fields(2);
    std::memcpy(fields.data(), bytes.data(), bytes.size());
    return fields;
  }

  std::unique_ptr<Driver> driver_;
  std::unique_ptr<io::EventThread> thread_;
  std::unique_ptr<Balloon> balloon_;
};

INSTANTIATE_TEST_SUITE_P(Memory, BalloonTest, ::testing::Bool(),
                         [](const auto& shared) { return shared.param ? "shared" : "private"; });

TEST_P(BalloonTest, namedPages_areGivenBack_andTheirNeighboursAreNot) {
  make();
  driver_->start(*balloon_, kAgreed);
  fill(kFirstPage, 2000);
  ASSERT_EQ(resident(kFirstPage, 2000), 2000u);
  std::vector<std::uint32_t> numbers;
  for (std::uint32_t i = 1500; i > 100; --i) {
    numbers.push_back(kFirstPage + i);  // downwards, as guests give them
  }
  name(kInflateQueue, numbers);
  EXPECT_EQ(resident(kFirstPage, 2000), 600u);
  EXPECT_EQ(page(kFirstPage + 100)[0], 0xaa);
  EXPECT_EQ(page(kFirstPage + 1501)[4095], 0xaa);
  EXPECT_EQ(page(kFirstPage + 101)[0], 0);
  EXPECT_EQ(balloon_->counters().inflatedPages, 1400u);
  name(kDeflateQueue, {kFirstPage + 101});
  fill(kFirstPage + 101, 1);
  EXPECT_EQ(page(kFirstPage + 101)[7], 0xaa);
  EXPECT_EQ(balloon_->counters().deflatedPages, 1u);
  driver_->stop();
}

TEST_P(BalloonTest, pagesThatAreNone_harmNothing) {
  make();
  driver_->start(*balloon_, kAgreed);
  fill(kFirstPage, 16);
  name(kInflateQueue, {0xffffffff, Driver::kMemoryBytes / kPageBytes, kFirstPage + 3, 0x80000000, kFirstPage + 3});
  EXPECT_EQ(resident(kFirstPage, 16), 15u);
  EXPECT_EQ(balloon_->counters().refusedPages, 3u);
  // Not even a whole number, none, and nothing but room.
  driver_->queue(kInflateQueue).offer({{Driver::kData, 3, false}});
  driver_->queue(kInflateQueue).offer({{Driver::kData, 64, true}});
  driver_->queue(kInflateQueue).notifyIfWanted();
  driver_->queue(kInflateQueue).nextUsed(driver_->interrupts());
  driver_->queue(kInflateQueue).nextUsed(driver_->interrupts());
  EXPECT_EQ(driver_->interrupts().brokenReason(), "");
  driver_->stop();
}

TEST_P(BalloonTest, hugeChain_isWorkedOffInTurns) {
  make();
  driver_->start(*balloon_, kAgreed);
  fill(kFirstPage, 8);
  // The same MiB of page numbers, over and over.
  std::vector<std::uint32_t> numbers(262144, kFirstPage + 2);
  std::memcpy(driver_->data(0, 1 << 20).data(), numbers.data(), 1 << 20);
  const std::vector<virtio::test::Part> parts(100, {Driver::kData, 1 << 20, false});
  driver_->queue(kInflateQueue).offer(parts);
  driver_->queue(kInflateQueue).notifyIfWanted();
  // Meanwhile others have their turns: ten, unless this thread waits longer for a processor than the chain takes.
  int turns = 0;
  for (int i = 0; i < 10 && !driver_->queue(kInflateQueue).hasUsed(); ++i) {
    name(kDeflateQueue, {1});
    turns += driver_->queue(kInflateQueue).hasUsed() ? 0 : 1;
  }
  EXPECT_GE(turns, 1);
  driver_->queue(kInflateQueue).nextUsed(driver_->interrupts());
  EXPECT_EQ(resident(kFirstPage, 8), 7u);
  driver_->stop();
}

TEST_P(BalloonTest, freePages_areGivenBack_wherePagesAreWhole) {
  make({.freePageReporting = true});
  EXPECT_NE(balloon_->features() & kReporting, 0u);
  driver_->start(*balloon_, kAgreed | kReporting);
  fill(kFirstPage, 1024);
  driver_->queue(kReportingQueue)
      .offer({{kFirstPage * kPageBytes, 512 * kPageBytes, true},
              {(kFirstPage + 600) * kPageBytes + 1, 2 * kPageBytes, true},
              {(kFirstPage + 700) * kPageBytes + 100, 200, true}});
  driver_->queue(kReportingQueue).notifyIfWanted();
  driver_->queue(kReportingQueue).nextUsed(driver_->interrupts());
  EXPECT_EQ(resident(kFirstPage, 1024), 1024u - 512u - 1u);
  EXPECT_EQ(page(kFirstPage + 600)[100], 0xaa);
  EXPECT_EQ(page(kFirstPage + 601)[100], 0);
  EXPECT_EQ(page(kFirstPage + 700)[150], 0xaa);
  EXPECT_EQ(balloon_->counters().reportedBytes, 513 * kPageBytes);
  driver_->stop();
}

TEST_P(BalloonTest, reportingQueue_isTheLastOneThatTheDriverHas) {
  make({.freePageReporting = true});
  for (const std::size_t index : {2u, 3u, 4u}) {
    std::vector<std::size_t> without{2, 3, 4};
    std::erase(without, index);
    driver_->start(*balloon_, kAgreed | kReporting, 128, without);
    fill(kFirstPage, 4);
    driver_->queue(index).offer({{kFirstPage * kPageBytes, 4 * kPageBytes, true}});
    driver_->queue(index).notifyIfWanted();
    driver_->queue(index).nextUsed(driver_->interrupts());
    EXPECT_EQ(resident(kFirstPage, 4), 0u);
    driver_->stop();
  }
}

TEST_P(BalloonTest, target_isToldToTheDriver_andItsAnswerIsHeard) {
  make({.targetBytes = 1 << 20});
  EXPECT_EQ(config(), (std::vector<std::uint32_t>{256, 0}));
  driver_->start(*balloon_, kAgreed);
  balloon_->setTarget((2 << 20) + 4095);
  EXPECT_TRUE(driver_->interrupts().waitForConfig(1));
  EXPECT_EQ(config(), (std::vector<std::uint32_t>{512, 0}));
  EXPECT_EQ(balloon_->target(), 2u << 20);
  balloon_->setTarget(2 << 20);  // no news
  EXPECT_EQ(driver_->interrupts().configChanges(), 1u);
  const std::uint32_t pages = 300;
  std::array<std::uint8_t, 4> bytes;
  std::memcpy(bytes.data(), &pages, sizeof pages);
  balloon_->writeConfig(4, bytes);
  EXPECT_EQ(balloon_->actual(), 300 * kPageBytes);
  balloon_->writeConfig(0, bytes);  // the target is not the driver's
  EXPECT_EQ(balloon_->target(), 2u << 20);
  bytes = {0xff, 0xff, 0xff, 0xff};
  balloon_->writeConfig(4, bytes);
  EXPECT_EQ(balloon_->actual(), Driver::kMemoryBytes) << "a lie goes no further than the memory";
  tests::expectRefusal("bytes is more than the guest's memory", [&] { balloon_->setTarget(Driver::kMemoryBytes + 1); });
  EXPECT_EQ(balloon_->target(), 2u << 20);
  EXPECT_NO_THROW(balloon_->setTarget(Driver::kMemoryBytes));
  driver_->stop();
  EXPECT_EQ(balloon_->actual(), 0u) << "a guest that was reset has all of its memory";
}

TEST_P(BalloonTest, loopInAQueue_breaksTheDevice_untilItIsReset) {
  make();
  driver_->start(*balloon_, kAgreed);
  auto& queue = driver_->queue(kDeflateQueue);
  queue.put<std::uint64_t>(queue.layout().descriptorTable, Driver::kData);
  queue.put<std::uint32_t>(queue.layout().descriptorTable + 8, 64);
  queue.put<std::uint16_t>(queue.layout().descriptorTable + 12, 1);
  queue.put<std::uint16_t>(queue.layout().descriptorTable + 14, 0);
  queue.offerHead(0);
  queue.notify();
  EXPECT_TRUE(driver_->interrupts().waitForBroken());
  driver_->stop();
  driver_->start(*balloon_, kAgreed);
  fill(kFirstPage, 1);
  name(kInflateQueue, {kFirstPage});
  EXPECT_EQ(resident(kFirstPage, 1), 0u);
  driver_->stop();
}

TEST_P(BalloonTest, deviceThatGoesWhileItWorks_endsItsWorkFirst) {
  make();
  driver_->start(*balloon_, kAgreed);
  fill(kFirstPage, 1);
  const std::vector<std::uint32_t> numbers(262144, kFirstPage);
  std::memcpy(driver_->data(0, 1 << 20).data(), numbers.data(), 1 << 20);
  const std::vector<virtio::test::Part> parts(100, {Driver::kData, 1 << 20, false});
  driver_->queue(kInflateQueue).offer(parts);
  driver_->queue(kInflateQueue).notify();
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (resident(kFirstPage, 1) != 0 && std::chrono::steady_clock::now() < end) {
    std::this_thread::yield();
  }
  ASSERT_EQ(resident(kFirstPage, 1), 0u) << "it works";
  balloon_.reset();
  // No page is given back any more, however many turns the thread has.
  fill(kFirstPage, 1);
  for (int turn = 0; turn < 10; ++turn) {
    io::runOn(*thread_, [] {});
    EXPECT_EQ(resident(kFirstPage, 1), 1u);
  }
  EXPECT_FALSE(driver_->queue(kInflateQueue).hasUsed());
}

}  // namespace
}  // namespace vmmhost::kvm::virtio::balloon
