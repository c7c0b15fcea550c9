#include "worker-kvm/virtio/net/net.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>

#include <atomic>
#include <filesystem>
#include <iterator>
#include <set>
#include <thread>

#include "worker-kvm/virtio/net/test_net_driver.h"
#include "worker-kvm/virtio/net/test_tap.h"

namespace vmmhost::kvm::virtio::net {
namespace {

using test::kTestEtherType;
using virtio::test::Driver;

constexpr MacAddress kGuestMac{0x02, 0, 0, 0, 0, 1};
constexpr std::uint64_t kBase = kMac | kStatus | kEventIdx | kIndirectDesc;
constexpr std::uint64_t kSegments = kCsum | kGuestCsum | kHostTso4 | kHostTso6 | kGuestTso4 | kGuestTso6;
constexpr std::uint64_t kTransmitData = 16 << 20;

// A device over a TAP in a network of its own.
class NetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    std::string reason;
    if (!test::enterOwnNetwork(reason)) {
      GTEST_SKIP() << reason;
    }
  }
  void make(std::size_t pairs = 1, NetOptions options = {.mac = kGuestMac}) {
    tap_ = std::make_unique<test::TestTap>("tap0", pairs);
    driver_ = std::make_unique<Driver>(2 * pairs + 1);
    net_ = std::make_unique<Net>(std::move(options), tap_->takeQueues());
    net_->connect(driver_->interrupts());
  }
  void start(std::uint64_t features) {
    driver_->start(*net_, features);
    // It has begun, offloads and all, when it has looked at something; what this is counts as dropped.
    dropped_ = net_->counters().transmitDropped + 1;
    driver_->queue(1).offer({{Driver::kData, 1, false}});
    driver_->queue(1).notifyIfWanted();
    driver_->queue(1).nextUsed(driver_->interrupts());
  }
  std::uint64_t transmitDropped() { return net_->counters().transmitDropped - dropped_; }
  test::ReceiveSide receiveSide(std::uint32_t bufferBytes, std::size_t pair = 0) {
    return {*driver_, 2 * pair, pair * (4 << 20), bufferBytes};
  }
  test::TransmitSide transmitSide(std::size_t pair = 0) {
    return {*driver_, 2 * pair + 1, kTransmitData + pair * (4 << 20)};
  }
  std::vector<std::uint8_t> config(std::uint64_t offset, std::size_t bytes) {
    std::vector<std::uint8_t> data(bytes);
    net_->readConfig(offset, data);
    return data;
  }
  void sendToGuest(const Fd& socket, const std::vector<std::uint8_t>& frame) {
    ASSERT_EQ(::send(socket.get(), frame.data(), frame.size(), 0), static_cast<ssize_t>(frame.size()));
  }
  // A frame on its way to the guest that the system left to be cut into pieces.
  void sendLarge(const Fd& socket, const std::vector<std::uint8_t>& frame) {
    // PACKET_VNET_HDR knows the header without numBuffers.
    Header header{kNeedsCsum, kGsoTcp4, 54, 1400, test::kTransport, test::kTcpChecksum, 0};
    iovec parts[] = {{&header, 10}, {const_cast<std::uint8_t*>(frame.data()), frame.size()}};
    ASSERT_EQ(::writev(socket.get(), parts, 2), static_cast<ssize_t>(10 + frame.size()));
  }

  std::uint64_t dropped_ = 0;
  std::unique_ptr<test::TestTap> tap_;
  std::unique_ptr<Driver> driver_;
  std::unique_ptr<Net> net_;
};

TEST_F(NetTest, frames_goBothWays) {
  make();
  start(kBase);
  const Fd socket = tap_->packetSocket(kTestEtherType);
  auto receive = receiveSide(2048);
  receive.offer(8);
  for (const std::size_t payload : {46u, 47u, 1000u, 1500u}) {
    const auto toGuest = test::ethernet(kGuestMac, tap_->mac(), kTestEtherType, payload);
    sendToGuest(socket, toGuest);
    const test::Received received = receive.take();
    EXPECT_EQ(received.frame, toGuest);
    EXPECT_EQ(received.header.flags, 0);
    EXPECT_EQ(received.header.gsoType, kGsoNone);
    EXPECT_EQ(received.header.numBuffers, 1);
  }
  auto transmit = transmitSide();
  for (const std::size_t pieces : {1u, 2u, 7u}) {
    const auto toHost = test::ethernet(tap_->mac(), kGuestMac, kTestEtherType, 100 * pieces + 1);
    transmit.send({}, toHost, pieces);
    EXPECT_EQ(test::receive(socket), toHost);
    transmit.awaitUsed();
  }
  EXPECT_EQ(net_->counters().receivedFrames, 4u);
  EXPECT_EQ(net_->counters().transmittedFrames, 3u);
  driver_->stop();
}

TEST_F(NetTest, manyFrames_arriveInOrder_overManyTurns) {
  make();
  start(kBase | kMrgRxbuf);
  const Fd socket = tap_->packetSocket(kTestEtherType);
  auto receive = receiveSide(2048);
  receive.offer(64);
  auto transmit = transmitSide();
  for (int round = 0; round < 30; ++round) {
    for (std::uint8_t i = 0; i < 30; ++i) {
      sendToGuest(socket, test::ethernet(kGuestMac, tap_->mac(), kTestEtherType, 60u + i));
    }
    for (std::uint8_t i = 0; i < 30; ++i) {
      EXPECT_EQ(receive.take().frame.size(), 74u + i);
      receive.offer(1);
    }
    for (std::uint8_t i = 0; i < 16; ++i) {
      transmit.offer({}, test::ethernet(tap_->mac(), kGuestMac, kTestEtherType, 60u + i));
    }
    driver_->queue(1).notifyIfWanted();
    for (std::uint8_t i = 0; i < 16; ++i) {
      const auto frame = test::receive(socket);
      ASSERT_TRUE(frame);
      EXPECT_EQ(frame->size(), 74u + i);
      transmit.awaitUsed();
    }
  }
  driver_->stop();
}

TEST_F(NetTest, checksum_isLeftToADriverThatAgreed_andMadeForOneThatDidNot) {
  make();
  tap_->setAddress("192.0.2.1", "255.255.255.0");
  tap_->addNeighbour("192.0.2.2", kGuestMac);
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in guest{};
  guest.sin_family = AF_INET;
  guest.sin_port = htons(7000);
  ::inet_pton(AF_INET, "192.0.2.2", &guest.sin_addr);
  for (const bool agreed : {true, false}) {
    start(kBase | (agreed ? kGuestCsum : 0));
    auto receive = receiveSide(2048);
    receive.offer(4);
    const std::vector<std::uint8_t> data(333, 0x5a);
    ASSERT_EQ(::sendto(socket.get(), data.data(), data.size(), 0, reinterpret_cast<sockaddr*>(&guest), sizeof guest),
              static_cast<ssize_t>(data.size()));
    test::Received received = receive.take();
    EXPECT_EQ(received.frame.size(), 14u + 20u + 8u + data.size());
    EXPECT_EQ(received.header.flags, agreed ? kNeedsCsum : 0);
    if (agreed) {
      EXPECT_EQ(received.header.csumStart, test::kTransport);
      EXPECT_EQ(received.header.csumOffset, test::kUdpChecksum);
      EXPECT_EQ(test::get16(received.frame, test::kTransport + test::kUdpChecksum), test::pseudoSum(received.frame));
    } else {
      const auto sum = test::sum(received.frame, test::kTransport, received.frame.size(),
                                 test::folded(test::sum(received.frame, test::kIp + 12, test::kIp + 20, 17) +
                                              static_cast<std::uint32_t>(8 + data.size())));
      EXPECT_EQ(test::folded(sum), 0xffff) << "the checksum is right";
    }
    driver_->stop();
  }
}

TEST_F(NetTest, checksum_thatTheDriverLeftOut_isMadeByTheSystem) {
  make();
  tap_->setAddress("192.0.2.1", "255.255.255.0");
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_port = htons(7000);
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&any), sizeof any), 0);
  start(kBase | kCsum);
  auto transmit = transmitSide();
  const auto frame = test::ipv4(tap_->mac(), kGuestMac, "192.0.2.2", "192.0.2.1", 17, 1000, 7000, 500);
  // As it is, its checksum is wrong: the system would drop it.
  transmit.send({kNeedsCsum, kGsoNone, 42, 0, test::kTransport, test::kUdpChecksum, 0}, frame, 3);
  const auto datagram = test::receive(socket);
  ASSERT_TRUE(datagram);
  EXPECT_EQ(*datagram, std::vector<std::uint8_t>(frame.begin() + 42, frame.end()));
  driver_->stop();
}

TEST_F(NetTest, largeFrame_isSpreadOverMergeableBuffers) {
  make();
  start(kBase | kSegments | kMrgRxbuf);
  const Fd socket = tap_->packetSocket(ETH_P_IP, true);
  auto receive = receiveSide(1536);
  receive.offer(100);
  const auto frame = test::ipv4(kGuestMac, tap_->mac(), "192.0.2.1", "192.0.2.2", 6, 1, 2, 60000);
  sendLarge(socket, frame);
  const test::Received received = receive.take();
  EXPECT_EQ(received.frame, frame);
  EXPECT_EQ(received.header.flags, kNeedsCsum);
  EXPECT_EQ(received.header.gsoType, kGsoTcp4);
  EXPECT_EQ(received.header.gsoSize, 1400);
  EXPECT_EQ(received.header.numBuffers, (frame.size() + sizeof(Header) + 1535) / 1536);
  for (std::size_t i = 0; i + 1 < received.buffers.size(); ++i) {
    EXPECT_EQ(received.buffers[i], 1536u);
  }
  driver_->stop();
}

TEST_F(NetTest, largeFrame_forWhichBuffersAreShort_waitsForMore_andTheNextOneBehindIt) {
  make();
  start(kBase | kSegments | kMrgRxbuf);
  const Fd socket = tap_->packetSocket(ETH_P_IP, true);
  auto receive = receiveSide(1536);
  receive.offer(10);
  const auto large = test::ipv4(kGuestMac, tap_->mac(), "192.0.2.1", "192.0.2.2", 6, 1, 2, 60000);
  sendLarge(socket, large);
  const auto small = test::ethernet(kGuestMac, tap_->mac(), kTestEtherType, 100);
  const Fd other = tap_->packetSocket(kTestEtherType);
  sendToGuest(other, small);
  for (unsigned offered = 10; offered < 40; offered += 10) {
    EXPECT_FALSE(receive.hasUsed()) << "a part of a frame is no frame";
    receive.offer(10);
  }
  EXPECT_EQ(receive.take().frame, large);
  receive.offer(1);
  EXPECT_EQ(receive.take().frame, small);
  EXPECT_EQ(net_->counters().receiveDropped, 0u);
  driver_->stop();
}

TEST_F(NetTest, largeFrame_fromTheDriver_isTakenAsOne) {
  make();
  start(kBase | kSegments);
  const Fd socket = tap_->packetSocket(ETH_P_IP, true);
  auto transmit = transmitSide();
  const auto frame = test::ipv4(tap_->mac(), kGuestMac, "192.0.2.2", "192.0.2.1", 6, 1, 2, 60000);
  transmit.send({kNeedsCsum, kGsoTcp4, 54, 1400, test::kTransport, test::kTcpChecksum, 0}, frame, 20);
  const auto seen = test::receive(socket);
  ASSERT_TRUE(seen);
  EXPECT_EQ(std::vector<std::uint8_t>(seen->begin() + 10, seen->end()), frame);
  driver_->stop();
}

TEST_F(NetTest, frames_waitWhileTheDriverHasNoBuffers) {
  make();
  start(kBase);
  const Fd socket = tap_->packetSocket(kTestEtherType);
  auto receive = receiveSide(2048);
  for (std::uint8_t i = 0; i < 20; ++i) {
    sendToGuest(socket, test::ethernet(kGuestMac, tap_->mac(), kTestEtherType, 60u + i));
  }
  for (std::uint8_t i = 0; i < 20; ++i) {
    receive.offer(1);
    EXPECT_EQ(receive.take().frame.size(), 74u + i);
  }
  driver_->stop();
}

TEST_F(NetTest, whatWasNotAgreedTo_isDropped_andTheQueueGoesOn) {
  make();
  start(kBase);
  const Fd socket = tap_->packetSocket(kTestEtherType);
  auto transmit = transmitSide();
  const auto good = test::ethernet(tap_->mac(), kGuestMac, kTestEtherType, 100);
  transmit.offer({kNeedsCsum, kGsoNone, 0, 0, 14, 2, 0}, good);
  transmit.offer({0, kGsoTcp4, 0, 1400, 0, 0, 0}, good);
  transmit.offer({0xff, 0xff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff}, good);
  transmit.offer({}, {});                                       // a header alone
  driver_->queue(1).offer({{Driver::kData, 5, false}});         // not even that
  driver_->queue(1).offer({{Driver::kData, 64, true}});         // nothing to read
  driver_->queue(1).offer({{Driver::kData, 30 << 20, false}});  // larger than any frame
  transmit.send({0xfe, kGsoNone, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff}, good);
  EXPECT_EQ(test::receive(socket), good);
  for (int used = 0; used < 8; ++used) {
    transmit.awaitUsed();
  }
  EXPECT_EQ(transmitDropped(), 7u);
  EXPECT_EQ(driver_->interrupts().brokenReason(), "");
  driver_->stop();
}

TEST_F(NetTest, headerThatLiesAboutTheFrame_isRefusedByTheTap_andTheQueueGoesOn) {
  make();
  start(kBase | kSegments);
  const Fd socket = tap_->packetSocket(kTestEtherType);
  auto transmit = transmitSide();
  const auto good = test::ethernet(tap_->mac(), kGuestMac, kTestEtherType, 100);
  for (const Header& header :
       {Header{kNeedsCsum, kGsoTcp4, 0xffff, 0, 0xffff, 0xffff, 0}, Header{kNeedsCsum, kGsoTcp4, 0, 0, 0, 0, 0},
        Header{kNeedsCsum, kGsoTcp6, 5, 1, 113, 5, 0}, Header{kNeedsCsum, kGsoNone, 0, 0, 0xfffe, 0xfffe, 0}}) {
    transmit.send(header, good);
    transmit.awaitUsed();
  }
  transmit.send({}, good);
  std::optional<std::vector<std::uint8_t>> seen;
  do {
    seen = test::receive(socket);
  } while (seen && *seen != good);  // the system may make something of a lie
  EXPECT_TRUE(seen);
  EXPECT_EQ(driver_->interrupts().brokenReason(), "");
  driver_->stop();
}

TEST_F(NetTest, receiveBufferWithoutRoomForAHeader_breaksTheDevice_untilItIsReset) {
  make();
  start(kBase | kMrgRxbuf);
  const Fd socket = tap_->packetSocket(kTestEtherType);
  const auto frame = test::ethernet(kGuestMac, tap_->mac(), kTestEtherType, 100);
  driver_->queue(0).offer({{Driver::kData, 11, true}});
  driver_->queue(0).notifyIfWanted();
  sendToGuest(socket, frame);
  EXPECT_TRUE(driver_->interrupts().waitForBroken());
  driver_->stop();
  start(kBase | kMrgRxbuf);
  auto receive = receiveSide(2048);
  receive.offer(1);
  EXPECT_EQ(receive.take().frame, frame);  // it has waited
  driver_->stop();
}

TEST_F(NetTest, loopInAQueue_breaksTheDevice) {
  make();
  start(kBase);
  auto& queue = driver_->queue(1);
  queue.put<std::uint64_t>(queue.layout().descriptorTable, Driver::kData);
  queue.put<std::uint32_t>(queue.layout().descriptorTable + 8, 64);
  queue.put<std::uint16_t>(queue.layout().descriptorTable + 12, 1);
  queue.put<std::uint16_t>(queue.layout().descriptorTable + 14, 0);
  queue.offerHead(0);
  queue.notifyIfWanted();
  EXPECT_TRUE(driver_->interrupts().waitForBroken());
  driver_->stop();
}

TEST_F(NetTest, configuration_isWhatTheSpecificationSays) {
  make(2, {.mac = kGuestMac, .mtu = 1400});
  EXPECT_EQ(net_->features() & (kMq | kMtu | kMac | kStatus), kMq | kMtu | kMac | kStatus);
  EXPECT_EQ(net_->queueSizes().size(), 5u);
  EXPECT_EQ(config(0, 6), std::vector<std::uint8_t>(kGuestMac.begin(), kGuestMac.end()));
  EXPECT_EQ(config(6, 2), (std::vector<std::uint8_t>{1, 0}));
  EXPECT_EQ(config(8, 2), (std::vector<std::uint8_t>{2, 0}));
  EXPECT_EQ(config(10, 4), (std::vector<std::uint8_t>{0x78, 0x05, 0, 0}));
  EXPECT_EQ(config(~std::uint64_t{0}, 8), std::vector<std::uint8_t>(8));
}

TEST_F(NetTest, controlCommands_areCarriedOut_andUnknownOnesRefused) {
  make();
  start(kBase | kCtrlVq | kCtrlRx | kCtrlMacAddr);
  EXPECT_EQ(test::command(*driver_, 2, {kClassRx, kRxPromisc, 1}), kControlOk);
  EXPECT_EQ(test::command(*driver_, 2, {kClassMac, kMacAddrSet, 2, 9, 8, 7, 6, 5}), kControlOk);
  EXPECT_EQ(config(0, 6), (std::vector<std::uint8_t>{2, 9, 8, 7, 6, 5}));
  EXPECT_EQ(test::command(*driver_, 2, {2, 0, 1, 0}), kControlError);
  EXPECT_EQ(test::command(*driver_, 2, {kClassMq, kMqVqPairsSet, 1, 0}), kControlError);
  EXPECT_EQ(test::command(*driver_, 2, std::vector<std::uint8_t>(60000)), kControlError);
  EXPECT_EQ(test::command(*driver_, 2, {kClassRx}), kControlError);
  driver_->stop();
  EXPECT_EQ(config(0, 6), std::vector<std::uint8_t>(kGuestMac.begin(), kGuestMac.end())) << "a reset forgets it";
}

TEST_F(NetTest, controlCommandWithoutRoomForAnAnswer_harmsNobody) {
  make();
  start(kBase | kCtrlVq | kCtrlRx);
  driver_->data(0, 3)[0] = 0;
  driver_->queue(2).offer({{Driver::kData, 3, false}});
  driver_->queue(2).notifyIfWanted();
  EXPECT_EQ(driver_->queue(2).nextUsed(driver_->interrupts()).bytes, 0u);
  EXPECT_EQ(test::command(*driver_, 2, {kClassRx, kRxPromisc, 0}), kControlOk);
  driver_->stop();
}

TEST_F(NetTest, offloads_canBeSwitchedOff_whileTheDriverRuns) {
  make();
  start(kBase | kSegments | kMrgRxbuf | kCtrlVq | kCtrlGuestOffloads);
  ASSERT_EQ(test::command(*driver_, 2, {kClassGuestOffloads, kGuestOffloadsSet, 0, 0, 0, 0, 0, 0, 0, 0}), kControlOk);
  const Fd socket = tap_->packetSocket(ETH_P_IP, true);
  auto receive = receiveSide(2048);
  receive.offer(100);
  sendLarge(socket, test::ipv4(kGuestMac, tap_->mac(), "192.0.2.1", "192.0.2.2", 6, 1, 2, 14000));
  for (int segment = 0; segment < 10; ++segment) {
    const test::Received received = receive.take();
    EXPECT_EQ(received.frame.size(), 1454u);
    EXPECT_EQ(received.header.gsoType, kGsoNone);
    EXPECT_EQ(received.header.flags & kNeedsCsum, 0);
  }
  driver_->stop();
}

TEST_F(NetTest, severalPairs_shareTheFramesOnlyWhenTheDriverSaysSo) {
  make(3);
  start(kBase | kMrgRxbuf | kCtrlVq | kMq);
  const Fd socket = tap_->packetSocket(ETH_P_IP);
  std::vector<test::ReceiveSide> receive;
  for (std::size_t pair = 0; pair < 3; ++pair) {
    receive.push_back(receiveSide(2048, pair));
    receive[pair].offer(128);
  }
  constexpr std::uint16_t kFlows = 60;
  const auto sendFlows = [&](std::uint16_t first) {
    for (std::uint16_t flow = 0; flow < kFlows; ++flow) {
      sendToGuest(socket, test::ipv4(kGuestMac, tap_->mac(), "192.0.2.1", "192.0.2.2", 17, 1000,
                                     static_cast<std::uint16_t>(first + flow), 100));
    }
  };
  // All on the first queue, from whichever TAP queue they come.
  sendFlows(0);
  std::set<std::uint16_t> seen;
  for (std::uint16_t flow = 0; flow < kFlows; ++flow) {
    seen.insert(test::get16(receive[0].take().frame, test::kTransport + 2));
  }
  EXPECT_EQ(seen.size(), kFlows);
  receive[0].offer(kFlows);
  EXPECT_FALSE(receive[1].hasUsed() || receive[2].hasUsed());

  ASSERT_EQ(test::command(*driver_, 6, {kClassMq, kMqVqPairsSet, 3, 0}), kControlOk);
  sendFlows(100);
  // Each queue asks to be told only when it is waited for: here they are looked at in turn.
  std::vector<unsigned> got(3);
  const auto deadline = std::chrono::steady_clock::now() + virtio::test::kDeadline;
  while (got[0] + got[1] + got[2] < kFlows && std::chrono::steady_clock::now() < deadline) {
    for (std::size_t pair = 0; pair < 3; ++pair) {
      if (receive[pair].hasUsed()) {
        EXPECT_GE(test::get16(receive[pair].take().frame, test::kTransport + 2), 100);
        ++got[pair];
      }
    }
    std::this_thread::yield();
  }
  EXPECT_EQ(got[0] + got[1] + got[2], kFlows);
  EXPECT_GT(got[1], 0u);
  EXPECT_GT(got[2], 0u);

  ASSERT_EQ(test::command(*driver_, 6, {kClassMq, kMqVqPairsSet, 1, 0}), kControlOk);
  const auto used1 = driver_->queue(2).usedIndex();
  const auto used2 = driver_->queue(4).usedIndex();
  sendFlows(200);
  for (std::uint16_t flow = 0; flow < kFlows; ++flow) {
    EXPECT_GE(test::get16(receive[0].take().frame, test::kTransport + 2), 200);
  }
  EXPECT_EQ(driver_->queue(2).usedIndex(), used1);
  EXPECT_EQ(driver_->queue(4).usedIndex(), used2);
  EXPECT_EQ(test::command(*driver_, 6, {kClassMq, kMqVqPairsSet, 4, 0}), kControlError);
  driver_->stop();
}

TEST_F(NetTest, everyPair_transmits) {
  make(3);
  start(kBase | kCtrlVq | kMq);
  ASSERT_EQ(test::command(*driver_, 6, {kClassMq, kMqVqPairsSet, 3, 0}), kControlOk);
  const Fd socket = tap_->packetSocket(kTestEtherType);
  for (std::size_t pair = 0; pair < 3; ++pair) {
    const auto frame = test::ethernet(tap_->mac(), kGuestMac, kTestEtherType, 100 + pair);
    transmitSide(pair).send({}, frame);
    EXPECT_EQ(test::receive(socket), frame);
  }
  driver_->stop();
}

TEST_F(NetTest, driverWithoutMultiQueue_hasItsControlQueueBehindOnePair) {
  make(2);
  start(kBase | kCtrlVq | kCtrlRx);
  EXPECT_EQ(test::command(*driver_, 2, {kClassRx, kRxAllMulti, 1}), kControlOk);
  driver_->stop();
}

TEST_F(NetTest, link_goesDownAndUp_andCarriesNothingMeanwhile) {
  make();
  start(kBase);
  const Fd socket = tap_->packetSocket(kTestEtherType);
  auto receive = receiveSide(2048);
  receive.offer(4);
  net_->setLink(false);
  EXPECT_TRUE(driver_->interrupts().waitForConfig(1));
  EXPECT_EQ(config(6, 2), (std::vector<std::uint8_t>{0, 0}));
  net_->setLink(false);  // no news
  auto transmit = transmitSide();
  transmit.send({}, test::ethernet(tap_->mac(), kGuestMac, kTestEtherType, 100));
  transmit.awaitUsed();
  sendToGuest(socket, test::ethernet(kGuestMac, tap_->mac(), kTestEtherType, 100));
  while (net_->counters().receiveDropped == 0) {
    std::this_thread::yield();
  }
  net_->setLink(true);
  EXPECT_TRUE(driver_->interrupts().waitForConfig(2));
  EXPECT_EQ(driver_->interrupts().configChanges(), 2u);
  const auto frame = test::ethernet(kGuestMac, tap_->mac(), kTestEtherType, 200);
  sendToGuest(socket, frame);
  EXPECT_EQ(receive.take().frame, frame);
  EXPECT_EQ(transmitDropped(), 1u);
  driver_->stop();
}

TEST_F(NetTest, tapThatIsDeleted_isALinkThatIsDown) {
  make(2);
  start(kBase | kCtrlVq | kMq);
  ASSERT_EQ(test::command(*driver_, 4, {kClassMq, kMqVqPairsSet, 2, 0}), kControlOk);
  tap_->remove();
  EXPECT_TRUE(driver_->interrupts().waitForConfig(1));
  EXPECT_EQ(config(6, 2), (std::vector<std::uint8_t>{0, 0}));
  for (std::size_t pair = 0; pair < 2; ++pair) {
    auto transmit = transmitSide(pair);
    transmit.send({}, test::ethernet(tap_->mac(), kGuestMac, kTestEtherType, 100));
    transmit.awaitUsed();
  }
  net_->setLink(true);
  EXPECT_EQ(config(6, 2), (std::vector<std::uint8_t>{0, 0}));
  driver_->stop();
  start(kBase);
  transmitSide().send({}, test::ethernet(tap_->mac(), kGuestMac, kTestEtherType, 100));
  transmitSide().awaitUsed();
  driver_->stop();
  EXPECT_EQ(driver_->interrupts().configChanges(), 1u);
}

TEST_F(NetTest, device_stopsAndStartsUnderLoad) {
  make(2);
  std::atomic<bool> ends = false;
  std::atomic<unsigned> frames = 0;
  std::thread load([&] {
    const Fd socket = tap_->packetSocket(ETH_P_IP);
    for (std::uint16_t flow = 0; !ends; ++flow, ++frames) {
      const auto frame = test::ipv4(kGuestMac, tap_->mac(), "192.0.2.1", "192.0.2.2", 17, 1000, flow, 100);
      [[maybe_unused]] const ssize_t sent = ::send(socket.get(), frame.data(), frame.size(), MSG_DONTWAIT);
    }
  });
  for (int round = 0; round < 40; ++round) {
    start(kBase | kMrgRxbuf | kCtrlVq | kMq);
    for (std::size_t pair = 0; pair < 2; ++pair) {
      receiveSide(2048, pair).offer(100);
      auto transmit = transmitSide(pair);
      for (int i = 0; i < 10; ++i) {
        transmit.send({}, test::ethernet(tap_->mac(), kGuestMac, kTestEtherType, 100));
      }
    }
    if (round % 2 == 0) {
      EXPECT_EQ(test::command(*driver_, 4, {kClassMq, kMqVqPairsSet, 2, 0}), kControlOk);
    } else {
      // Stopped while it switches.
      driver_->queue(4).offer({{Driver::kData + (40 << 20), 4, false}, {Driver::kData + (41 << 20), 1, true}});
      driver_->queue(4).notifyIfWanted();
    }
    driver_->stop();
    const auto used = driver_->queue(0).usedIndex();
    const unsigned before = frames;
    while (frames < before + 10) {  // which a device that goes on would receive
      std::this_thread::yield();
    }
    EXPECT_EQ(driver_->queue(0).usedIndex(), used) << "memory is left alone";
  }
  ends = true;
  load.join();
}

TEST_F(NetTest, deviceThatGoesWhileItIsActive_endsItsThreadsFirst) {
  const auto threads = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/task"), std::filesystem::directory_iterator());
  };
  const auto before = threads();
  make(2);
  start(kBase | kMrgRxbuf | kCtrlVq | kMq);
  EXPECT_GT(threads(), before);
  auto receive = receiveSide(2048);
  receive.offer(100);
  const Fd socket = tap_->packetSocket(kTestEtherType);
  const auto frame = test::ethernet(kGuestMac, tap_->mac(), kTestEtherType, 100);
  sendToGuest(socket, frame);
  EXPECT_EQ(receive.take().frame, frame);
  sendToGuest(socket, frame);
  net_.reset();
  EXPECT_EQ(threads(), before);
}

TEST_F(NetTest, deviceWithoutTap_hasNoLink_andDiscards) {
  driver_ = std::make_unique<Driver>(3);
  net_ = std::make_unique<Net>(NetOptions{.mac = kGuestMac}, std::vector<Fd>{});
  net_->connect(driver_->interrupts());
  EXPECT_EQ(net_->features() & (kCsum | kGuestCsum | kMq), 0u);
  EXPECT_EQ(config(6, 2), (std::vector<std::uint8_t>{0, 0}));
  start(kBase);
  auto transmit = transmitSide();
  transmit.send({}, test::ethernet(kGuestMac, kGuestMac, kTestEtherType, 100));
  transmit.awaitUsed();
  EXPECT_EQ(transmitDropped(), 1u);
  EXPECT_EQ(net_->counters().transmittedFrames, 0u);
  driver_->stop();
}

TEST_F(NetTest, descriptorThatIsNoTap_isRefused) {
  std::vector<Fd> taps;
  taps.emplace_back(::open("/dev/null", O_RDWR | O_CLOEXEC));
  try {
    const Net net({.name = "net7"}, std::move(taps));
    ADD_FAILURE() << "was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.message().rfind("net7: its descriptor is no TAP", 0), 0u) << error.message();
  }
}

}  // namespace
}  // namespace vmmhost::kvm::virtio::net
