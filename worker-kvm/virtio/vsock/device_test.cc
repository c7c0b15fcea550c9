#include "worker-kvm/virtio/vsock/device.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>

#include <future>
#include <thread>
#include <utility>

#include "tests/support/refusal.h"
#include "vmmhost/error.h"
#include "worker-kvm/virtio/features.h"
#include "worker-kvm/virtio/vsock/test_guest.h"

namespace vmmhost::kvm::virtio::vsock::test {
namespace {

constexpr std::size_t kMuch = std::size_t{64} << 20;

TEST_F(VsockTest, identity_isThatOfASocketDevice) {
  make();
  EXPECT_EQ(device_->type(), 19);
  EXPECT_EQ(device_->queueSizes().size(), 3u);
  std::uint8_t cid[8];
  device_->readConfig(0, cid);
  EXPECT_EQ(cid[0], kCid);
  for (int i = 1; i < 8; ++i) {
    EXPECT_EQ(cid[i], 0);
  }
  std::uint8_t beyond[4] = {1, 1, 1, 1};
  device_->readConfig(8, beyond);
  EXPECT_EQ(beyond[0], 0);
}

TEST_F(VsockTest, clientOfTheHost_isAskedFor_andToldOkBeforeAnyByteOfTheGuest) {
  make();
  Pair pair = makePair();
  device_->connectToGuest(std::move(pair.near), 5000);
  const Packet request = guest().expect(Operation::kRequest);
  EXPECT_EQ(request.header.destinationPort, 5000u);
  EXPECT_GE(request.header.sourcePort, 1u << 30);
  EXPECT_GT(request.header.bufferAllocation, 0u);
  Stream stream(guest(), 5000, request.header.sourcePort);
  stream.note(request);
  // Data in the same breath as the answer.
  stream.send(Operation::kResponse);
  stream.write("hello");
  const std::string expected = "OK " + std::to_string(stream.hostPort()) + "\nhello";
  EXPECT_EQ(readBytesOf(pair.far, expected.size()), expected);
}

TEST_F(VsockTest, whatAClientSendsBeforeOk_arrives) {
  make();
  Pair pair = makePair();
  writeAll(pair.far, "early");
  device_->connectToGuest(std::move(pair.near), 5000);
  const Packet request = guest().expect(Operation::kRequest);
  Stream stream(guest(), 5000, request.header.sourcePort);
  stream.send(Operation::kResponse);
  EXPECT_EQ(stream.expect(Operation::kReadWrite).payload, "early");
}

TEST_F(VsockTest, guestThatRefuses_closesTheClientWithoutAWord) {
  make();
  Pair pair = makePair();
  device_->connectToGuest(std::move(pair.near), 5000);
  const Packet request = guest().expect(Operation::kRequest);
  Stream(guest(), 5000, request.header.sourcePort).send(Operation::kReset);
  EXPECT_EQ(readToEnd(pair.far), "");
  guest().expectSilence();
}

TEST_F(VsockTest, guestThatDoesNotAnswer_isResetInTime) {
  options_.limits.connectTimeout = std::chrono::milliseconds(50);
  make();
  Pair pair = makePair();
  device_->connectToGuest(std::move(pair.near), 5000);
  const Packet request = guest().expect(Operation::kRequest);
  EXPECT_EQ(guest().expect(Operation::kReset).header.sourcePort, request.header.sourcePort);
  EXPECT_EQ(readToEnd(pair.far), "");
}

TEST_F(VsockTest, clientThatLeavesBeforeTheAnswer_isReset) {
  make();
  Pair pair = makePair();
  device_->connectToGuest(std::move(pair.near), 5000);
  guest().expect(Operation::kRequest);
  pair.far.reset();
  guest().expect(Operation::kReset);
}

TEST_F(VsockTest, guestConnects_toWhatTheHostGives) {
  make();
  Client client = connectService(1234, 80);
  writeAll(client.socket, "from the host");
  EXPECT_EQ(client.stream.expect(Operation::kReadWrite).payload, "from the host");
  client.stream.write("from the guest");
  EXPECT_EQ(readBytesOf(client.socket, 14), "from the guest");
}

TEST_F(VsockTest, hostThatHasNothing_orIsBusy_orTakesTooLong_isAReset) {
  options_.limits.connectTimeout = std::chrono::milliseconds(50);
  make();
  Stream first(guest(), 1, 80);
  first.send(Operation::kRequest);
  device_->hostAnswered(host_.next().ticket, Fd());
  first.expect(Operation::kReset);
  host_.setBusy(true);
  Stream second(guest(), 2, 80);
  second.send(Operation::kRequest);
  second.expect(Operation::kReset);
  host_.setBusy(false);
  Stream third(guest(), 3, 80);
  third.send(Operation::kRequest);
  const auto question = host_.next();
  third.expect(Operation::kReset);
  Pair pair = makePair();
  device_->hostAnswered(question.ticket, std::move(pair.near));  // too late
  EXPECT_EQ(readToEnd(pair.far), "");
  guest().expectSilence();
}

TEST_F(VsockTest, answerForAConnectionThatHasThePortsOfAnother_isNotTaken) {
  make();
  Stream stream(guest(), 1, 80);
  stream.send(Operation::kRequest);
  const auto old = host_.next();
  stream.send(Operation::kReset);
  stream.send(Operation::kRequest);
  const auto now = host_.next();
  Pair late = makePair();
  device_->hostAnswered(old.ticket, std::move(late.near));
  EXPECT_EQ(readToEnd(late.far), "");
  Pair right = makePair();
  device_->hostAnswered(now.ticket, std::move(right.near));
  stream.expect(Operation::kResponse);
}

class VsockFeatures : public VsockTest, public ::testing::WithParamInterface<std::uint64_t> {
 protected:
  VsockFeatures() { features_ = GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(, VsockFeatures, ::testing::Values(0, kEventIdx));

TEST_P(VsockFeatures, muchFromTheHost_arrivesWhole) {
  make();
  Client client = connectClient(5000);
  std::thread sender([&] {
    for (std::size_t at = 0; at < kMuch; at += 100000) {
      writeAll(client.socket, patternOf(at, std::min<std::size_t>(100000, kMuch - at)));
    }
  });
  for (std::size_t at = 0; at < kMuch;) {
    const std::size_t count = std::min<std::size_t>(1 << 20, kMuch - at);
    std::string text = client.stream.read(count);
    ASSERT_EQ(text, patternOf(at, text.size())) << "at " << at;
    at += text.size();
  }
  sender.join();
}

TEST_P(VsockFeatures, muchFromTheGuest_arrivesWhole) {
  make();
  Client client = connectService(1234, 80);
  auto received = std::async(std::launch::async, [&] {
    for (std::size_t at = 0; at < kMuch;) {
      const std::string text = readBytesOf(client.socket, std::min<std::size_t>(1 << 20, kMuch - at));
      if (text.empty() || text != patternOf(at, text.size())) {
        return at;
      }
      at += text.size();
    }
    return kMuch;
  });
  for (std::size_t at = 0; at < kMuch;) {
    while (client.stream.credit() == 0 || guest().hasPacket()) {
      client.stream.note(guest().expect(Operation::kCreditUpdate));
    }
    const std::size_t count = std::min<std::size_t>({64 * 1024, client.stream.credit(), kMuch - at});
    client.stream.write(patternOf(at, count));
    at += count;
  }
  EXPECT_EQ(received.get(), kMuch);
}

TEST_F(VsockTest, hostThatEnds_isAShutdownOfSending_andHearsOn) {
  make();
  Client client = connectClient(5000);
  writeAll(client.socket, "last");
  ::shutdown(client.socket.get(), SHUT_WR);
  EXPECT_EQ(client.stream.expect(Operation::kReadWrite).payload, "last");
  EXPECT_EQ(client.stream.expect(Operation::kShutdown).header.flags, kShutdownSend);
  client.stream.write("still heard");
  EXPECT_EQ(readBytesOf(client.socket, 11), "still heard");
  client.stream.send(Operation::kShutdown, kShutdownBoth);
  client.stream.expect(Operation::kReset);
  EXPECT_EQ(readToEnd(client.socket), "");
  EXPECT_EQ(device_->connections(), 0u);
}

TEST_F(VsockTest, guestThatEndsSending_isAnEndOfFile_andHearsOn) {
  make();
  Client client = connectService(1234, 80);
  client.stream.write("last");
  client.stream.send(Operation::kShutdown, kShutdownSend);
  EXPECT_EQ(readToEnd(client.socket), "last");
  writeAll(client.socket, "still heard");
  EXPECT_EQ(client.stream.expect(Operation::kReadWrite).payload, "still heard");
  client.socket.reset();
  // It was told in one piece or in two.
  std::uint32_t flags = 0;
  while (flags != kShutdownBoth) {
    flags |= client.stream.expect(Operation::kShutdown).header.flags;
  }
  client.stream.send(Operation::kReset);
  guest().expectSilence();
  EXPECT_EQ(device_->connections(), 0u);
}

TEST_F(VsockTest, guestThatEndsReceiving_isABrokenPipe_andSendsOn) {
  make();
  Client client = connectClient(5000);
  client.stream.send(Operation::kShutdown, kShutdownReceive);
  guest().expectSilence();
  EXPECT_LT(::send(client.socket.get(), "x", 1, MSG_NOSIGNAL), 0);
  EXPECT_EQ(errno, EPIPE);
  client.stream.write("still sent");
  EXPECT_EQ(readBytesOf(client.socket, 10), "still sent");
}

TEST_F(VsockTest, hostThatIsGone_isAShutdownOfBoth_andAResetIsWaitedFor) {
  options_.limits.closeTimeout = std::chrono::milliseconds(50);
  make();
  Client client = connectClient(5000);
  writeAll(client.socket, "last");
  client.socket.reset();
  std::uint32_t flags = 0;
  std::string text;
  while (flags != kShutdownBoth) {
    const Packet packet = guest().receive();
    flags |= packet.header.operation == Operation::kShutdown ? packet.header.flags : 0;
    text += packet.payload;
  }
  EXPECT_EQ(text, "last");
  EXPECT_EQ(device_->connections(), 1u);
  client.stream.expect(Operation::kReset);  // the time is over
  guest().expectSilence();
  EXPECT_EQ(device_->connections(), 0u);
}

TEST_F(VsockTest, hostThatIsGoneWithUnreadBytes_endsTheConnection) {
  make();
  Client client = connectClient(5000);
  client.stream.write("never read");
  guest().waitForSent();
  client.socket.reset();
  std::uint32_t flags = 0;
  while (flags != kShutdownBoth) {
    const Packet packet = guest().receive();
    if (packet.header.operation == Operation::kReset) {
      break;
    }
    ASSERT_EQ(packet.header.operation, Operation::kShutdown);
    flags |= packet.header.flags;
  }
  if (flags == kShutdownBoth) {  // then the guest is waited for
    client.stream.send(Operation::kReset);
  }
  guest().expectSilence();
  EXPECT_EQ(device_->connections(), 0u);
}

TEST_F(VsockTest, slowReader_getsEverythingThatTheGuestSentBeforeItClosed) {
  make();
  Client client = connectService(1234, 80);
  std::string sent;
  // More than a socket holds.
  while (client.stream.credit() > 0) {
    const std::string part = patternOf(sent.size(), std::min<std::size_t>(64 * 1024, client.stream.credit()));
    client.stream.write(part);
    sent += part;
    guest().waitForSent();
    while (guest().hasPacket()) {
      client.stream.note(guest().expect(Operation::kCreditUpdate));
    }
  }
  client.stream.send(Operation::kShutdown, kShutdownBoth);
  client.stream.expect(Operation::kReset);
  EXPECT_EQ(device_->connections(), 1u);
  // The ports are free meanwhile.
  Client other = connectService(1234, 80);
  EXPECT_EQ(readToEnd(client.socket), sent);
  other.stream.write("x");
  EXPECT_EQ(readBytesOf(other.socket, 1), "x");
}

TEST_F(VsockTest, slowReader_holdsTheGuestBack_andNobodyElse) {
  make();
  Client slow = connectService(1, 80);
  Client other = connectService(2, 80);
  std::size_t sent = 0;
  while (slow.stream.credit() > 0) {
    const std::size_t part = std::min<std::size_t>(64 * 1024, slow.stream.credit());
    slow.stream.write(patternOf(sent, part));
    sent += part;
    guest().waitForSent();
    while (guest().hasPacket()) {
      slow.stream.note(guest().expect(Operation::kCreditUpdate));
    }
  }
  other.stream.write("at once");
  EXPECT_EQ(readBytesOf(other.socket, 7), "at once");
  EXPECT_EQ(readBytesOf(slow.socket, sent), patternOf(0, sent));
  slow.stream.expect(Operation::kCreditUpdate);
  EXPECT_GT(slow.stream.credit(), 0u);
}

TEST_F(VsockTest, guestWithoutRoom_isSentNothing_andAskedForCreditOnce) {
  make();
  Pair pair = makePair();
  device_->connectToGuest(std::move(pair.near), 5000);
  const Packet request = guest().expect(Operation::kRequest);
  Stream stream(guest(), 5000, request.header.sourcePort);
  stream.frame().bufferAllocation = 10;
  stream.send(Operation::kResponse);
  writeAll(pair.far, "0123456789abcdefghij!");
  EXPECT_EQ(stream.expect(Operation::kReadWrite).payload, "0123456789");
  stream.expect(Operation::kCreditRequest);
  stream.frame().forwardCount = 0;
  stream.send(Operation::kCreditUpdate);  // nothing new
  guest().expectSilence();
  stream.frame().forwardCount = 10;
  stream.send(Operation::kCreditUpdate);
  EXPECT_EQ(stream.expect(Operation::kReadWrite).payload, "abcdefghij");
  stream.frame().forwardCount = 20;
  stream.expect(Operation::kCreditRequest);
  stream.send(Operation::kCreditUpdate);
  EXPECT_EQ(stream.expect(Operation::kReadWrite).payload, "!");
}

TEST_F(VsockTest, creditRequest_isAnswered) {
  make();
  Client client = connectClient(5000);
  client.stream.send(Operation::kCreditRequest);
  EXPECT_GT(client.stream.expect(Operation::kCreditUpdate).header.bufferAllocation, 0u);
}

TEST_F(VsockTest, guestWithoutBuffers_stopsTheSockets_andBuffersLetThemGoOn) {
  buffers_ = 2;
  make();
  Client one = connectClient(1);
  Client two = connectClient(2);
  for (int i = 0; i < 16; ++i) {
    writeAll(one.socket, std::string(Guest::kPayloadBytes, '1'));
    writeAll(two.socket, std::string(Guest::kPayloadBytes, '2'));
  }
  std::size_t first = 0;
  std::size_t second = 0;
  while (first + second < 32 * Guest::kPayloadBytes) {
    const Packet packet = guest().receive();
    (packet.payload[0] == '1' ? first : second) += packet.payload.size();
    // Neither is far ahead, though one has been served before the other was there: each has its turn.
    EXPECT_LE(first > second ? first - second : second - first, 6 * Guest::kPayloadBytes);
  }
}

TEST_F(VsockTest, twoThousandConnections_allWork) {
  options_.limits.maxConnections = 4096;
  options_.firstDescriptor = 8192;
  rlimit limit = {};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < 8192 + 4096) {
    GTEST_SKIP() << "takes more descriptors than there may be";
  }
  make();
  std::vector<Client> clients;
  for (std::uint32_t i = 0; i < 2000; ++i) {
    clients.push_back(i % 2 == 0 ? connectClient(5000 + i) : connectService(5000 + i, 80));
    ASSERT_FALSE(HasFailure()) << i;
  }
  EXPECT_EQ(device_->connections(), 2000u);
  std::uint64_t shares = 0;
  for (Client& client : clients) {
    shares += client.stream.peerAllocation();
    EXPECT_GE(client.stream.peerAllocation(), options_.limits.smallestShare);
    writeAll(client.socket, std::to_string(client.stream.guestPort()));
  }
  EXPECT_LE(shares, options_.limits.allShares);
  for (std::size_t i = 0; i < clients.size(); ++i) {
    const Packet packet = guest().expect(Operation::kReadWrite);
    EXPECT_EQ(packet.payload, std::to_string(packet.header.destinationPort));
    clients.at(packet.header.destinationPort - 5000).stream.write("back " + packet.payload);
  }
  for (Client& client : clients) {
    const std::string expected = "back " + std::to_string(client.stream.guestPort());
    EXPECT_EQ(readBytesOf(client.socket, expected.size()), expected);
    client.stream.send(Operation::kReset);
  }
  guest().expectSilence();
  EXPECT_EQ(device_->connections(), 0u);
}

TEST_F(VsockTest, reset_closesEverything_andTheDeviceWorksAgain) {
  make();
  Client client = connectClient(5000);
  Pair asking = makePair();
  device_->connectToGuest(std::move(asking.near), 5001);
  guest().expect(Operation::kRequest);
  driver_.stop();
  EXPECT_EQ(readToEnd(client.socket), "");
  EXPECT_EQ(readToEnd(asking.far), "");
  Pair nobody = makePair();
  device_->connectToGuest(std::move(nobody.near), 5000);  // there is no driver
  EXPECT_EQ(readToEnd(nobody.far), "");
  guest().start();
  Client again = connectClient(5000);
  again.stream.write("again");
  EXPECT_EQ(readBytesOf(again.socket, 5), "again");
}

TEST_F(VsockTest, transportReset_closesEverything_andIsAnEvent_onceThereIsABuffer) {
  make();
  Client client = connectClient(5000);
  device_->announceTransportReset();
  EXPECT_EQ(readToEnd(client.socket), "");
  driver_.queue(2).put<std::uint32_t>(Driver::kData, 0xffffffff);
  driver_.queue(2).offer({{Driver::kData, 4, true}});
  driver_.queue(2).notify();
  EXPECT_EQ(driver_.queue(2).nextUsed(driver_.interrupts()).bytes, 4u);
  EXPECT_EQ(driver_.queue(2).get<std::uint32_t>(Driver::kData), 0u);
  // Nothing of before is known.
  client.stream.send(Operation::kCreditRequest);
  guest().expect(Operation::kReset);
}

TEST_F(VsockTest, usedPackets_areSeenSoon_thoughNothingElseHappens) {
  make();
  guest().send(Header{});
  EXPECT_TRUE(driver_.interrupts().waitForUsed(1, 1));
  guest().waitForSent();
}

TEST_F(VsockTest, usedPackets_thatComeAfterOthersWereSeen_areSeenToo) {
  options_.usedDelay = std::chrono::milliseconds(1);
  make();
  Client client = connectClient(5000);
  for (int i = 0; i < 20; ++i) {
    for (int packets = 0; packets < 33; ++packets) {  // an eighth of the queue, and one
      client.stream.send(Operation::kCreditUpdate);
    }
    guest().waitForSent();
  }
}

TEST_F(VsockTest, connectionsInTurn_areToldApart_andOnesThatAreGoneAreGone) {
  make();
  Client one = connectClient(5000);
  Client two = connectClient(5001);
  for (const std::string text : {"a", "b"}) {
    one.stream.write(text + "1");
    two.stream.write(text + "2");
    EXPECT_EQ(readBytesOf(one.socket, 2), text + "1");
    EXPECT_EQ(readBytesOf(two.socket, 2), text + "2");
  }
  two.stream.send(Operation::kReset);
  EXPECT_EQ(readToEnd(two.socket), "");
  two.stream.send(Operation::kCreditRequest);  // right behind what ended it
  EXPECT_EQ(guest().expect(Operation::kReset).header.destinationPort, 5001u);
  one.stream.write("on");
  EXPECT_EQ(readBytesOf(one.socket, 2), "on");
}

TEST_F(VsockTest, destroyedBeforeUsedPacketsAreSeen_isQuiet) {
  options_.usedDelay = std::chrono::milliseconds(1);
  for (int i = 0; i < 100; ++i) {
    make();
    Stream stream(guest(), 1, 80);
    stream.send(Operation::kCreditUpdate);
    guest().expect(Operation::kReset);  // it was used
    device_.reset();
  }
}

TEST_F(VsockTest, usedPackets_areSeenWithAnAnswer_orOnceTheyAreMany) {
  features_ = 0;  // the driver asks for every interrupt
  options_.usedDelay = std::chrono::hours(1);
  make();
  Client client = connectClient(5000);
  auto& interrupts = driver_.interrupts();
  interrupts.together = true;
  const auto send = [&](int packets) {
    for (int i = 0; i < packets; ++i) {
      client.stream.send(Operation::kCreditUpdate);
    }
  };
  // After everything that was sent before, and of one piece more.
  const auto answer = [&] {
    client.stream.write("y");
    EXPECT_EQ(readBytesOf(client.socket, 1), "y");
    writeAll(client.socket, "x");
    EXPECT_EQ(client.stream.expect(Operation::kReadWrite).payload, "x");
  };
  // One packet so far, of one piece; a sixteenth of the queue are 16.
  send(12);
  answer();
  EXPECT_FALSE(driver_.queue(1).hasUsed());
  answer();
  guest().waitForSent();
  EXPECT_EQ(interrupts.used(1), 0u);
  send(31);
  send(1);
  EXPECT_TRUE(interrupts.waitForUsed(1, 1));
  guest().waitForSent();
  send(14);
  answer();
  guest().waitForSent();
  EXPECT_EQ(interrupts.used(1), 1u);
}

TEST_F(VsockTest, socketThatBlocks_orIsOneTooMany_isRefused) {
  options_.limits.maxConnections = 2;
  make();
  Pair blocking = makePair();
  tests::expectRefusal("is none, or one that blocks", [&] { device_->connectToGuest(std::move(blocking.far), 1); });
  Client one = connectClient(1);
  Client two = connectClient(2);
  tests::expectRefusal("as many vsock connections as it can have",
                       [&] { device_->connectToGuest(makePair().near, 3); });
  Stream stream(guest(), 4, 80);
  stream.send(Operation::kRequest);
  guest().expect(Operation::kReset);
}

// It costs one connection, and not all that come later.
TEST_F(VsockTest, freeNumberBelowThoseOfSockets_isFilled) {
  options_.duplicates = false;
  make();
  Pair refused = makePair();
  try {
    device_->connectToGuest(std::move(refused.near), 1);
    FAIL() << "was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnavailable) << error.message();
    EXPECT_TRUE(error.retryable());
  }
  Client client = connectClient(2);
  EXPECT_GE(client.socket.get(), options_.firstDescriptor);
  client.stream.write("x");
  EXPECT_EQ(readBytesOf(client.socket, 1), "x");
}

TEST_F(VsockTest, destroyedInTheMiddleOfEverything_closesTheSockets) {
  make();
  Client client = connectClient(5000);
  driver_.stop();
  guest().start();
  Client other = connectService(1, 80);
  device_.reset();
  EXPECT_EQ(readToEnd(other.socket), "");
}

}  // namespace
}  // namespace vmmhost::kvm::virtio::vsock::test
