#include "worker-kvm/virtio/queue.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

namespace vmmhost::kvm::virtio {
namespace {

constexpr std::uint64_t kMemoryBytes = 1 << 20;
constexpr std::uint64_t kTable = 0x1000;
constexpr std::uint64_t kAvailable = 0x2000;
constexpr std::uint64_t kUsed = 0x3000;
constexpr std::uint64_t kIndirectTable = 0x4000;
constexpr std::uint64_t kData = 0x10000;
constexpr std::uint16_t kSize = 8;
constexpr std::uint16_t kNext = 1, kWrite = 2, kIndirect = 4;

// The driver's side.
class QueueTest : public ::testing::Test {
 protected:
  QueueTest() : memory_(std::array{memory::Range{0, kMemoryBytes}}) {}

  template <typename Value>
  void put(std::uint64_t address, Value value) {
    std::memcpy(memory_.require(address, sizeof value, "test").data(), &value, sizeof value);
  }
  template <typename Value>
  Value get(std::uint64_t address) {
    Value value;
    std::memcpy(&value, memory_.require(address, sizeof value, "test").data(), sizeof value);
    return value;
  }
  void describe(std::uint16_t index, std::uint64_t address, std::uint32_t length, std::uint16_t flags,
                std::uint16_t next = 0, std::uint64_t table = kTable) {
    put(table + 16 * index, address);
    put(table + 16 * index + 8, length);
    put(table + 16 * index + 12, flags);
    put(table + 16 * index + 14, next);
  }
  void offer(std::uint16_t head) {
    put<std::uint16_t>(kAvailable + 4 + 2 * (offered_ % kSize), head);
    put(kAvailable + 2, ++offered_);
  }
  Queue queue(bool eventIndex = false, bool indirect = true) {
    auto made = Queue::make(memory_, {kSize, kTable, kAvailable, kUsed, eventIndex, indirect});
    EXPECT_TRUE(made);
    return *made;
  }
  Queue::Fetched fetchOne(Queue queue) { return queue.fetch(chain_); }

  memory::GuestMemory memory_;
  std::uint16_t offered_ = 0;
  Chain chain_;
};

TEST_F(QueueTest, layoutThatIsWrong_isRefused) {
  const QueueLayout good{kSize, kTable, kAvailable, kUsed, false, false};
  EXPECT_TRUE(Queue::make(memory_, good));
  for (const auto& change : std::vector<std::function<void(QueueLayout&)>>{
           [](QueueLayout& layout) { layout.size = 0; }, [](QueueLayout& layout) { layout.size = 6; },
           [](QueueLayout& layout) { layout.size = 2048; }, [](QueueLayout& layout) { layout.descriptorTable += 8; },
           [](QueueLayout& layout) { layout.availableRing += 1; }, [](QueueLayout& layout) { layout.usedRing += 2; },
           [](QueueLayout& layout) { layout.descriptorTable = kMemoryBytes - 16; },
           [](QueueLayout& layout) { layout.availableRing = kMemoryBytes; },
           [](QueueLayout& layout) { layout.usedRing = ~std::uint64_t{0} - 3; }}) {
    QueueLayout bad = good;
    change(bad);
    EXPECT_FALSE(Queue::make(memory_, bad));
  }
}

TEST_F(QueueTest, chainOfThree_isTakenInItsParts) {
  Queue queue = this->queue();
  EXPECT_EQ(queue.fetch(chain_), Queue::Fetched::kNone);
  describe(3, kData, 16, kNext, 5);
  describe(5, kData + 16, 100, kNext | kWrite, 1);
  describe(1, kData + 500, 1, kWrite);
  offer(3);
  ASSERT_EQ(queue.fetch(chain_), Queue::Fetched::kChain);
  EXPECT_EQ(chain_.head, 3);
  ASSERT_EQ(chain_.readable.size(), 1u);
  ASSERT_EQ(chain_.writable.size(), 2u);
  EXPECT_EQ(chain_.readableBytes, 16u);
  EXPECT_EQ(chain_.writableBytes, 101u);
  EXPECT_EQ(chain_.writable[1].iov_base, memory_.require(kData + 500, 1, "test").data());
  EXPECT_EQ(queue.fetch(chain_), Queue::Fetched::kNone);
  queue.publishUsed(3, 77);
  EXPECT_EQ(get<std::uint16_t>(kUsed + 2), 1);
  EXPECT_EQ(get<std::uint32_t>(kUsed + 4), 3u);
  EXPECT_EQ(get<std::uint32_t>(kUsed + 8), 77u);
}

TEST_F(QueueTest, chainsGivenTogether_standInOrder_acrossTheEndOfTheRing) {
  Queue queue = this->queue();
  queue.setPosition({kSize - 1, kSize - 1});
  queue.publishUsed(std::array{Queue::Used{4, 100}, Queue::Used{2, 50}});
  EXPECT_EQ(get<std::uint16_t>(kUsed + 2), kSize + 1);
  EXPECT_EQ(get<std::uint32_t>(kUsed + 4 + 8 * (kSize - 1)), 4u);
  EXPECT_EQ(get<std::uint32_t>(kUsed + 8 + 8 * (kSize - 1)), 100u);
  EXPECT_EQ(get<std::uint32_t>(kUsed + 4), 2u);
  EXPECT_EQ(get<std::uint32_t>(kUsed + 8), 50u);
}

TEST_F(QueueTest, ringsWrapAround) {
  Queue queue = this->queue();
  for (int round = 0; round < 70000; ++round) {
    describe(0, kData, 4, 0);
    offer(0);
    ASSERT_EQ(queue.fetch(chain_), Queue::Fetched::kChain) << round;
    queue.publishUsed(chain_.head, 0);
  }
  EXPECT_EQ(get<std::uint16_t>(kUsed + 2), static_cast<std::uint16_t>(70000));
}

TEST_F(QueueTest, indirectTable_isWalked) {
  Queue queue = this->queue();
  describe(0, kIndirectTable, 32, kIndirect);
  describe(0, kData, 10, kNext, 1, kIndirectTable);
  describe(1, kData + 10, 20, kWrite, 0, kIndirectTable);
  offer(0);
  ASSERT_EQ(queue.fetch(chain_), Queue::Fetched::kChain);
  EXPECT_EQ(chain_.readableBytes, 10u);
  EXPECT_EQ(chain_.writableBytes, 20u);
}

TEST_F(QueueTest, directThenIndirect_isOneChain) {
  Queue queue = this->queue();
  describe(0, kData, 10, kNext, 1);
  describe(1, kIndirectTable, 16, kIndirect);
  describe(0, kData + 10, 20, kWrite, 0, kIndirectTable);
  offer(0);
  ASSERT_EQ(queue.fetch(chain_), Queue::Fetched::kChain);
  EXPECT_EQ(chain_.readableBytes, 10u);
  EXPECT_EQ(chain_.writableBytes, 20u);
}

class BrokenQueue : public QueueTest {
 public:
  using QueueTest::describe;
  using QueueTest::offer;
  using QueueTest::put;
};

TEST_F(BrokenQueue, everyRuleBroken_isSeenAndLasts) {
  using Build = void (*)(BrokenQueue&);
  const std::vector<std::pair<const char*, Build>> cases = {
      {"loop",
       [](BrokenQueue& t) {
         t.describe(0, kData, 1, kNext, 1);
         t.describe(1, kData, 1, kNext, 0);
         t.offer(0);
       }},
      {"head beyond the table", [](BrokenQueue& t) { t.offer(kSize); }},
      {"next beyond the table",
       [](BrokenQueue& t) {
         t.describe(0, kData, 1, kNext, kSize);
         t.offer(0);
       }},
      {"outside memory",
       [](BrokenQueue& t) {
         t.describe(0, kMemoryBytes - 4, 8, 0);
         t.offer(0);
       }},
      {"address overflows",
       [](BrokenQueue& t) {
         t.describe(0, ~std::uint64_t{0} - 4, 0xffffffff, 0);
         t.offer(0);
       }},
      {"readable behind writable",
       [](BrokenQueue& t) {
         t.describe(0, kData, 1, kNext | kWrite, 1);
         t.describe(1, kData, 1, 0);
         t.offer(0);
       }},
      {"indirect with next",
       [](BrokenQueue& t) {
         t.describe(0, kIndirectTable, 16, kIndirect | kNext, 1);
         t.offer(0);
       }},
      {"indirect of half a descriptor",
       [](BrokenQueue& t) {
         t.describe(0, kIndirectTable, 24, kIndirect);
         t.offer(0);
       }},
      {"indirect of nothing",
       [](BrokenQueue& t) {
         t.describe(0, kIndirectTable, 0, kIndirect);
         t.offer(0);
       }},
      {"indirect in indirect",
       [](BrokenQueue& t) {
         t.describe(0, kIndirectTable, 16, kIndirect);
         t.describe(0, kIndirectTable + 16, 16, kIndirect, 0, kIndirectTable);
         t.offer(0);
       }},
      {"indirect outside memory",
       [](BrokenQueue& t) {
         t.describe(0, kMemoryBytes, 16, kIndirect);
         t.offer(0);
       }},
      {"indirect loop",
       [](BrokenQueue& t) {
         t.describe(0, kIndirectTable, 32, kIndirect);
         t.describe(0, kData, 1, kNext, 1, kIndirectTable);
         t.describe(1, kData, 1, kNext, 0, kIndirectTable);
         t.offer(0);
       }},
      {"more than the queue holds", [](BrokenQueue& t) { t.put<std::uint16_t>(kAvailable + 2, kSize + 1); }},
  };
  for (const auto& [name, build] : cases) {
    offered_ = 0;
    Queue queue = this->queue();
    build(*this);
    EXPECT_EQ(queue.fetch(chain_), Queue::Fetched::kBroken) << name;
    put<std::uint16_t>(kAvailable + 2, 0);
    EXPECT_EQ(queue.fetch(chain_), Queue::Fetched::kBroken) << name;
    EXPECT_TRUE(queue.isBroken());
  }
}

TEST_F(QueueTest, indirectThatWasNotAgreed_isBroken) {
  Queue queue = this->queue(false, false);
  describe(0, kIndirectTable, 16, kIndirect);
  offer(0);
  EXPECT_EQ(queue.fetch(chain_), Queue::Fetched::kBroken);
}

TEST_F(QueueTest, interrupts_followTheDriversFlag) {
  Queue queue = this->queue();
  queue.publishUsed(0, 0);
  EXPECT_TRUE(queue.needsInterrupt());
  EXPECT_FALSE(queue.needsInterrupt()) << "nothing new";
  put<std::uint16_t>(kAvailable, 1);
  queue.publishUsed(0, 0);
  EXPECT_FALSE(queue.needsInterrupt());
}

TEST_F(QueueTest, interrupts_followTheEventIndex) {
  Queue queue = this->queue(true);
  const auto want = [&](std::uint16_t index) { put<std::uint16_t>(kAvailable + 4 + 2 * kSize, index); };
  want(0);
  queue.publishUsed(0, 0);
  EXPECT_TRUE(queue.needsInterrupt());
  want(2);
  queue.publishUsed(0, 0);
  EXPECT_FALSE(queue.needsInterrupt()) << "used index 2: event 2 is not passed yet";
  queue.publishUsed(0, 0);
  EXPECT_TRUE(queue.needsInterrupt());
  queue.publishUsed(0, 0);
  EXPECT_FALSE(queue.needsInterrupt());
  want(6);
  for (int i = 0; i < 5; ++i) {
    queue.publishUsed(0, 0);
  }
  EXPECT_TRUE(queue.needsInterrupt()) << "passed within a batch";
}

TEST_F(QueueTest, notifications_areAskedForAndLateOnesSeen) {
  for (const bool eventIndex : {false, true}) {
    offered_ = 0;
    put<std::uint16_t>(kAvailable + 2, 0);
    Queue queue = this->queue(eventIndex);
    queue.disableNotifications();
    EXPECT_EQ(get<std::uint16_t>(kUsed), eventIndex ? 0 : 1);
    EXPECT_FALSE(queue.enableNotifications());
    EXPECT_EQ(get<std::uint16_t>(kUsed), 0);
    describe(0, kData, 1, 0);
    offer(0);
    EXPECT_TRUE(queue.enableNotifications());
    ASSERT_EQ(queue.fetch(chain_), Queue::Fetched::kChain);
    EXPECT_FALSE(queue.enableNotifications());
    EXPECT_EQ(get<std::uint16_t>(kUsed + 4 + 8 * kSize), eventIndex ? 1 : 0);
  }
}

TEST_F(QueueTest, untakenChain_comesAgain) {
  Queue queue = this->queue();
  describe(0, kData, 1, 0);
  offer(0);
  ASSERT_EQ(queue.fetch(chain_), Queue::Fetched::kChain);
  queue.unfetch();
  EXPECT_EQ(fetchOne(queue), Queue::Fetched::kChain);
}

TEST(Copies, crossSegmentsAndStopAtTheEnd) {
  std::array<std::uint8_t, 3> one{1, 2, 3};
  std::array<std::uint8_t, 2> two{4, 5};
  const std::array<iovec, 2> segments{iovec{one.data(), one.size()}, iovec{two.data(), two.size()}};
  std::array<std::uint8_t, 4> target{};
  EXPECT_EQ(copyFrom(segments, 2, target), 3u);
  EXPECT_EQ(target, (std::array<std::uint8_t, 4>{3, 4, 5, 0}));
  EXPECT_EQ(copyFrom(segments, 5, target), 0u);
  EXPECT_EQ(copyTo(segments, 1, std::array<std::uint8_t, 3>{7, 8, 9}), 3u);
  EXPECT_EQ(one[2], 8);
  EXPECT_EQ(two[0], 9);
}

TEST(Copies, headers_areInOneSegmentOrInSeveral_andWholeOrNot) {
  std::array<std::uint8_t, 3> one{1, 2, 3};
  std::array<std::uint8_t, 2> two{4, 5};
  const std::array<iovec, 2> segments{iovec{one.data(), one.size()}, iovec{two.data(), two.size()}};
  std::array<std::uint8_t, 3> inOne{};
  EXPECT_TRUE(copyHeaderFrom(segments, inOne));
  EXPECT_EQ(inOne, one);
  std::array<std::uint8_t, 4> inTwo{};
  EXPECT_TRUE(copyHeaderFrom(segments, inTwo));
  EXPECT_EQ(inTwo, (std::array<std::uint8_t, 4>{1, 2, 3, 4}));
  std::array<std::uint8_t, 6> tooLong{};
  EXPECT_FALSE(copyHeaderFrom(segments, tooLong));
  EXPECT_FALSE(copyHeaderFrom({}, inOne));
  EXPECT_TRUE(copyHeaderTo(segments, std::array<std::uint8_t, 2>{6, 7}));
  EXPECT_EQ(one, (std::array<std::uint8_t, 3>{6, 7, 3}));
  EXPECT_TRUE(copyHeaderTo(segments, std::array<std::uint8_t, 4>{8, 9, 10, 11}));
  EXPECT_EQ(one, (std::array<std::uint8_t, 3>{8, 9, 10}));
  EXPECT_EQ(two, (std::array<std::uint8_t, 2>{11, 5}));
  EXPECT_FALSE(copyHeaderTo(segments, tooLong));
}

}  // namespace
}  // namespace vmmhost::kvm::virtio
