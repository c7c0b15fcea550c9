// The two directions apart from TAPs: datagram sockets stand for them, whose fullness and loss can be had at will.
#include <fcntl.h>
#include <gtest/gtest.h>

#include "worker-kvm/virtio/net/receiver.h"
#include "worker-kvm/virtio/net/test_net_driver.h"
#include "worker-kvm/virtio/net/test_tap.h"
#include "worker-kvm/virtio/net/transmitter.h"

namespace vmmhost::kvm::virtio::net {
namespace {

using virtio::test::Driver;

class NetQueuesTest : public ::testing::Test {
 protected:
  NetQueuesTest() : driver_(1) {
    int sockets[2];
    test::check(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets) == 0, "socketpair");
    tap_ = Fd(sockets[0]);
    system_ = Fd(sockets[1]);
    shared_.interrupts = &driver_.interrupts();
  }
  ActiveQueue queue(std::uint16_t size) {
    ends_ = std::make_unique<virtio::test::DriverQueue>(driver_.memory(), Driver::kQueues, size, false);
    return {0, *Queue::make(driver_.memory(), ends_->layout()), -1};
  }
  void sendFrame(std::size_t bytes, std::uint8_t fill) {
    std::vector<std::uint8_t> frame(sizeof(Header) + bytes, fill);
    std::fill_n(frame.begin(), sizeof(Header), std::uint8_t{0});
    ASSERT_EQ(::send(system_.get(), frame.data(), frame.size(), 0), static_cast<ssize_t>(frame.size()));
  }

  Driver driver_;
  Shared shared_;
  Fd tap_, system_;
  std::unique_ptr<virtio::test::DriverQueue> ends_;
};

TEST_F(NetQueuesTest, fullTap_losesNothing) {
  Transmitter transmitter(shared_);
  transmitter.start(queue(128), 0);
  std::size_t offered = 0;
  std::size_t arrived = 0;
  const auto offer = [&] {
    for (; offered < arrived + 128 && offered < 1000; ++offered) {
      const std::uint64_t at = (offered % 128) * 4096;
      auto frame = driver_.data(at, 4096);
      std::fill(frame.begin(), frame.end(), std::uint8_t{0});
      std::memcpy(frame.data() + sizeof(Header), &offered, sizeof offered);
      ends_->offer({{Driver::kData + at, 4096, false}});
    }
  };
  offer();
  Turn turn = transmitter.transmit(tap_.get());
  while (turn == Turn::kMore) {
    turn = transmitter.transmit(tap_.get());
  }
  ASSERT_EQ(turn, Turn::kBlocked) << "128 frames of 4 KiB are more than a socket holds";
  while (arrived < 1000) {
    if (const auto frame = test::receive(system_, 0)) {
      std::size_t number = 0;
      std::memcpy(&number, frame->data() + sizeof(Header), sizeof number);
      ASSERT_EQ(number, arrived);
      ++arrived;
      continue;
    }
    // What has arrived was used.
    ASSERT_EQ(ends_->usedIndex(), arrived);
    offer();
    transmitter.transmit(tap_.get());
  }
  EXPECT_EQ(shared_.counters.transmittedFrames, 1000u);
}

TEST_F(NetQueuesTest, turn_isBounded) {
  Transmitter transmitter(shared_);
  transmitter.start(queue(128), 0);
  for (std::uint64_t i = 0; i < 100; ++i) {
    ends_->offer({{Driver::kData, 64, false}});
  }
  EXPECT_EQ(transmitter.transmit(-1), Turn::kMore);
  EXPECT_EQ(ends_->usedIndex(), kFramesPerTurn);
  EXPECT_EQ(transmitter.transmit(-1), Turn::kIdle);
}

TEST_F(NetQueuesTest, frameThatNoBuffersCanHold_isDropped_andTheNextIsNot) {
  Receiver receiver(shared_);
  receiver.start(queue(4), kMrgRxbuf);
  for (std::uint64_t i = 0; i < 4; ++i) {
    ends_->offer({{Driver::kData + i * 256, 256, true}});
  }
  sendFrame(1100, 1);  // more than 4 times 256
  sendFrame(900, 2);
  EXPECT_EQ(receiver.receive(tap_.get()), Turn::kBlocked);
  EXPECT_EQ(shared_.counters.receiveDropped, 1u);
  EXPECT_EQ(ends_->usedIndex(), 4);
  EXPECT_EQ(driver_.data(256, 1)[0], 2);
}

TEST_F(NetQueuesTest, withoutMergeableBuffers_frameHasOneBuffer_orNone) {
  Receiver receiver(shared_);
  receiver.start(queue(4), 0);
  for (std::uint64_t i = 0; i < 2; ++i) {
    ends_->offer({{Driver::kData + i * 4096, 100, true}, {Driver::kData + i * 4096 + 100, 924, true}});
  }
  sendFrame(1013, 1);
  sendFrame(1012, 2);
  EXPECT_EQ(receiver.receive(tap_.get()), Turn::kIdle);
  EXPECT_EQ(shared_.counters.receiveDropped, 1u);
  EXPECT_EQ(ends_->usedIndex(), 1);
  EXPECT_EQ(ends_->nextUsed(driver_.interrupts()).bytes, 1024u);
  EXPECT_EQ(driver_.data(10, 1)[0], 1) << "num_buffers";
  EXPECT_EQ(driver_.data(1023, 1)[0], 2);
}

TEST_F(NetQueuesTest, begunFrame_isFinishedFromTheSpill_evenBufferByBuffer) {
  Receiver receiver(shared_);
  receiver.start(queue(64), kMrgRxbuf);
  const auto offer = [&](std::uint64_t i) { ends_->offer({{Driver::kData + i * 64, 64, true}}); };
  offer(0);
  std::vector<std::uint8_t> frame(sizeof(Header) + 1000);
  for (std::size_t i = sizeof(Header); i < frame.size(); ++i) {
    frame[i] = static_cast<std::uint8_t>(i * 13);
  }
  ASSERT_GT(::send(system_.get(), frame.data(), frame.size(), 0), 0);
  EXPECT_EQ(receiver.receive(tap_.get()), Turn::kBlocked);
  for (std::uint64_t i = 1; i < 16; ++i) {  // 1012 bytes are 16 times 64
    EXPECT_EQ(ends_->usedIndex(), 0);
    EXPECT_EQ(receiver.resume(), Turn::kBlocked);
    offer(i);
  }
  EXPECT_EQ(receiver.resume(), Turn::kIdle);
  EXPECT_EQ(ends_->usedIndex(), 16);
  auto data = driver_.data(0, frame.size());
  EXPECT_EQ(data[10], 16);
  EXPECT_TRUE(std::equal(frame.begin() + sizeof(Header), frame.end(), data.begin() + sizeof(Header)));
}

}  // namespace
}  // namespace vmmhost::kvm::virtio::net
