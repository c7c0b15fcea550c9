// Guests that break the rules: each is answered by a reset or by silence, and nobody else is disturbed.
#include <gtest/gtest.h>

#include <random>

#include "worker-kvm/virtio/vsock/test_guest.h"

namespace vmmhost::kvm::virtio::vsock::test {
namespace {

constexpr std::uint32_t kUnknownPort = 4242;

class HostileVsock : public VsockTest {
 protected:
  Header unknown(Operation operation) {
    Header header;
    header.sourceCid = kCid;
    header.destinationCid = kHostCid;
    header.sourcePort = kUnknownPort;
    header.destinationPort = 80;
    header.operation = operation;
    return header;
  }
  // A packet for a connection that ends it.
  void expectReset(Client& client, const Header& header, std::string_view payload = {}) {
    guest().send(header, payload);
    Packet packet = guest().receive();
    while (packet.header.operation == Operation::kCreditUpdate) {
      packet = guest().receive();
    }
    EXPECT_EQ(packet.header.operation, Operation::kReset);
    EXPECT_TRUE(client.stream.isMine(packet.header));
    readToEnd(client.socket);  // there is one
    guest().expectSilence();
    EXPECT_EQ(device_->connections(), 0u);
  }
  void expectAlive(Client& client) {
    client.stream.write("ping");
    EXPECT_EQ(readBytesOf(client.socket, 4), "ping");
    writeAll(client.socket, "pong");
    EXPECT_EQ(client.stream.expect(Operation::kReadWrite).payload, "pong");
  }
  void offerSend(const std::vector<virtio::test::Part>& parts) {
    driver_.queue(1).offer(parts);
    driver_.queue(1).notify();
  }
};

TEST_F(HostileVsock, packetWithoutAWholeHeader_isDropped) {
  make();
  const HeaderBytes whole = formatHeader(unknown(Operation::kRequest));
  for (const std::size_t size : {std::size_t{1}, kHeaderBytes - 1}) {
    guest().sendRaw(std::string(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)));
  }
  guest().expectSilence();
}

TEST_F(HostileVsock, packetsOfNoConnection_areReset_butNotResets) {
  make();
  for (const int operation : {0, 2, 4, 5, 6, 7, 8, 255, 65535}) {
    guest().send(unknown(static_cast<Operation>(operation)));
    const Header answer = guest().expect(Operation::kReset).header;
    EXPECT_EQ(answer.destinationPort, kUnknownPort) << operation;
    EXPECT_EQ(answer.sourcePort, 80u);
  }
  guest().send(unknown(Operation::kReset));
  guest().expectSilence();
}

TEST_F(HostileVsock, otherAddresses_areDropped) {
  make();
  for (const std::uint64_t cid : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{3}, std::uint64_t{0xffffffff},
                                  ~std::uint64_t{0}, kCid | std::uint64_t{1} << 32}) {
    Header header = unknown(Operation::kRequest);
    header.sourceCid = cid;
    guest().send(header);
    header = unknown(Operation::kRequest);
    header.destinationCid = cid;
    guest().send(header);
  }
  guest().expectSilence();
}

TEST_F(HostileVsock, otherKindOfSocket_isResetInKind_andAStreamOfTheSamePortsLives) {
  make();
  Client client = connectClient(5000);
  Header header = client.stream.frame();
  header.operation = Operation::kReadWrite;
  for (const std::uint16_t type : {0, 2, 3, 65535}) {
    header.type = type;
    guest().send(header);
    EXPECT_EQ(guest().expect(Operation::kReset).header.type, type);
  }
  expectAlive(client);
}

TEST_F(HostileVsock, operationsThatThereAreNot_endTheConnection) {
  make();
  for (const int operation : {0, 8, 65535}) {
    Client client = connectClient(5000);
    Header header = client.stream.frame();
    header.operation = static_cast<Operation>(operation);
    expectReset(client, header);
  }
}

TEST_F(HostileVsock, operationsOutOfPlace_endTheConnection) {
  make();
  for (const Operation operation : {Operation::kRequest, Operation::kResponse}) {
    Client client = connectClient(5000);
    Header header = client.stream.frame();
    header.operation = operation;
    expectReset(client, header);
  }
}

TEST_F(HostileVsock, anythingButAnAnswerToARequest_endsIt) {
  make();
  for (const Operation operation :
       {Operation::kRequest, Operation::kShutdown, Operation::kReadWrite, Operation::kCreditUpdate}) {
    Pair pair = makePair();
    device_->connectToGuest(std::move(pair.near), 5000);
    Stream stream(guest(), 5000, guest().expect(Operation::kRequest).header.sourcePort);
    stream.send(operation);
    guest().expect(Operation::kReset);
    EXPECT_EQ(readToEnd(pair.far), "");
  }
}

TEST_F(HostileVsock, anythingWhileTheHostIsAsked_endsIt) {
  make();
  for (const Operation operation :
       {Operation::kRequest, Operation::kResponse, Operation::kShutdown, Operation::kReadWrite}) {
    Stream stream(guest(), 1, 80);
    stream.send(Operation::kRequest);
    const auto question = host_.next();
    stream.send(operation);
    guest().expect(Operation::kReset);
    Pair pair = makePair();
    device_->hostAnswered(question.ticket, std::move(pair.near));
    EXPECT_EQ(readToEnd(pair.far), "");
  }
  EXPECT_EQ(device_->connections(), 0u);
}

TEST_F(HostileVsock, lengthBeyondThePayload_endsTheConnection_lessIsWhatCounts) {
  make();
  Client client = connectClient(5000);
  Header header = client.stream.frame();
  header.operation = Operation::kReadWrite;
  header.length = 3;
  guest().send(header, "abcdefgh");
  EXPECT_EQ(readBytesOf(client.socket, 3), "abc");
  header.length = 0;
  guest().send(header, "not meant");
  guest().send(header);
  guest().expectSilence();
  header.length = 9;
  expectReset(client, header, "abcdefgh");
  Client other = connectClient(5000);
  header.destinationPort = other.stream.hostPort();
  header.length = 0xffffffff;
  expectReset(other, header, "abcdefgh");
}

TEST_F(HostileVsock, moreThanItMaySend_endsTheConnection) {
  options_.limits.largestShare = 32 * 1024;
  make();
  Client client = connectService(1, 80);
  // Nobody reads: the socket fills, then the buffer.
  while (client.stream.credit() > 0) {
    client.stream.write(std::string(std::min<std::size_t>(64 * 1024, client.stream.credit()), 'x'));
    guest().waitForSent();
    while (guest().hasPacket()) {
      client.stream.note(guest().expect(Operation::kCreditUpdate));
    }
  }
  // However much of it has become free meanwhile, this is more.
  const std::string part(client.stream.peerAllocation() + 1, 'x');
  Header header = client.stream.frame();
  header.operation = Operation::kReadWrite;
  header.length = static_cast<std::uint32_t>(part.size());
  expectReset(client, header, part);
}

TEST_F(HostileVsock, countsOfWhatWasNeverSent_endTheConnection) {
  make();
  for (const std::uint32_t count : {1U, 1000U, 0x7fffffffU, 0x80000000U}) {
    Client client = connectClient(5000);
    Header header = client.stream.frame();
    header.operation = Operation::kCreditUpdate;
    header.forwardCount = count;
    expectReset(client, header);
  }
}

TEST_F(HostileVsock, roomWithoutEnd_isTakenAtItsWord_andNoneStopsIt) {
  make();
  Client client = connectClient(5000);
  client.stream.frame().bufferAllocation = 0xffffffff;
  client.stream.send(Operation::kCreditUpdate);
  const std::string much(100000, 'x');
  writeAll(client.socket, much);
  EXPECT_EQ(client.stream.read(much.size()), much);
  client.stream.frame().bufferAllocation = 0;
  client.stream.send(Operation::kCreditUpdate);
  guest().waitForSent();
  writeAll(client.socket, "waits");
  guest().expect(Operation::kCreditRequest);
  guest().expectSilence();
  client.stream.frame().bufferAllocation = 5;
  client.stream.send(Operation::kCreditUpdate);
  EXPECT_EQ(guest().expect(Operation::kReadWrite).payload, "waits");
}

TEST_F(HostileVsock, dataBehindItsEnd_endsTheConnection) {
  make();
  Client client = connectClient(5000);
  client.stream.send(Operation::kShutdown, 0);
  expectAlive(client);
  client.stream.send(Operation::kShutdown, kShutdownSend);
  Header header = client.stream.frame();
  header.operation = Operation::kReadWrite;
  header.length = 1;
  expectReset(client, header, "x");
}

TEST_F(HostileVsock, flagsThatThereAreNot_areIgnored) {
  make();
  Client client = connectClient(5000);
  client.stream.send(Operation::kShutdown, ~kShutdownBoth);
  expectAlive(client);
  client.stream.send(Operation::kShutdown, 0xffffffff);
  guest().expect(Operation::kReset);
  EXPECT_EQ(readToEnd(client.socket), "");
}

TEST_F(HostileVsock, nonsenseThatNobodyReadsTheAnswersOf_isTakenOnlySoFar) {
  options_.limits.maxResets = 16;
  buffers_ = 0;
  make();
  for (int i = 0; i < 20; ++i) {
    guest().send(unknown(Operation::kReadWrite));
  }
  auto& sent = driver_.queue(1);
  for (int i = 0; i < 16; ++i) {
    sent.nextUsed(driver_.interrupts());
  }
  EXPECT_FALSE(sent.hasUsed());
  for (std::uint32_t slot = 0; slot < 20; ++slot) {
    guest().offerBuffer(slot);
  }
  guest().notifyReceive();
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(guest().receive(false).header.operation, Operation::kReset);
  }
  for (int i = 0; i < 4; ++i) {
    sent.nextUsed(driver_.interrupts());
  }
}

TEST_F(HostileVsock, requestsWithoutEnd_areRefusedBeyondTheLimit) {
  options_.limits.maxAsking = 4;
  make();
  for (std::uint32_t port = 1; port <= 6; ++port) {
    Stream(guest(), port, 80).send(Operation::kRequest);
  }
  EXPECT_EQ(guest().expect(Operation::kReset).header.destinationPort, 5u);
  EXPECT_EQ(guest().expect(Operation::kReset).header.destinationPort, 6u);
  device_->hostAnswered(host_.next().ticket, Fd());
  guest().expect(Operation::kReset);
  Stream(guest(), 7, 80).send(Operation::kRequest);
  guest().expectSilence();
  EXPECT_EQ(device_->connections(), 4u);
}

TEST_F(HostileVsock, headerAndPayloadInTinyPieces_areUnderstood) {
  make();
  Client client = connectClient(5000);
  Header header = client.stream.frame();
  header.operation = Operation::kReadWrite;
  header.length = 60;
  const HeaderBytes head = formatHeader(header);
  const std::string payload = "a payload of sixty bytes, one after the other, as it is here";
  const auto area = driver_.data(std::uint64_t{32} << 20, head.size() + payload.size());
  std::copy(head.begin(), head.end(), area.begin());
  std::copy(payload.begin(), payload.end(), area.begin() + static_cast<std::ptrdiff_t>(head.size()));
  std::vector<virtio::test::Part> parts;
  for (std::uint32_t i = 0; i < area.size(); ++i) {
    parts.push_back({Driver::kData + (std::uint64_t{32} << 20) + i, 1, false});
  }
  offerSend(parts);
  EXPECT_EQ(readBytesOf(client.socket, 60), payload.substr(0, 60));
}

TEST_F(HostileVsock, brokenTransmitQueue_isReported_andAResetMendsIt) {
  make();
  Client client = connectClient(5000);
  auto& queue = driver_.queue(1);
  const std::uint64_t table = queue.layout().descriptorTable;
  queue.put<std::uint64_t>(table + 16 * 200, Driver::kData);
  queue.put<std::uint32_t>(table + 16 * 200 + 8, 64);
  queue.put<std::uint16_t>(table + 16 * 200 + 12, 1);
  queue.put<std::uint16_t>(table + 16 * 200 + 14, 200);  // itself
  queue.offerHead(200);
  queue.notify();
  EXPECT_TRUE(driver_.interrupts().waitForBroken());
  EXPECT_EQ(readToEnd(client.socket), "");
  Pair nobody = makePair();
  device_->connectToGuest(std::move(nobody.near), 5000);
  EXPECT_EQ(readToEnd(nobody.far), "");
  driver_.stop();
  guest().start();
  Client again = connectClient(5000);
  expectAlive(again);
}

TEST_F(HostileVsock, receiveBufferWithoutRoom_isABrokenDevice) {
  buffers_ = 0;
  make();
  driver_.queue(0).offer({{Driver::kData, kHeaderBytes, true}});
  driver_.queue(0).notify();
  guest().send(unknown(Operation::kReadWrite));
  EXPECT_TRUE(driver_.interrupts().waitForBroken());
}

TEST_F(HostileVsock, receiveBufferThatCannotBeWritten_isABrokenDevice) {
  buffers_ = 0;
  make();
  driver_.queue(0).offer({{Driver::kData, 8192, false}});
  driver_.queue(0).notify();
  guest().send(unknown(Operation::kReadWrite));
  EXPECT_TRUE(driver_.interrupts().waitForBroken());
}

TEST_F(HostileVsock, eventBufferWithoutRoom_isABrokenDevice) {
  make();
  driver_.queue(2).offer({{Driver::kData, 3, true}});
  device_->announceTransportReset();
  EXPECT_TRUE(driver_.interrupts().waitForBroken());
}

TEST_F(HostileVsock, randomPackets_disturbNobody) {
  make();
  Client client = connectClient(5000);
  std::minstd_rand random(1);
  const auto pick = [&random](std::initializer_list<std::uint32_t> values) {
    return values.begin()[random() % values.size()];
  };
  std::vector<Pair> services;
  for (int i = 0; i < 20000; ++i) {
    Header header;
    header.sourceCid = random() % 50 == 0 ? random() : kCid;
    header.destinationCid = random() % 50 == 0 ? random() : kHostCid;
    header.sourcePort = 1 + random() % 4;
    header.destinationPort = 80;
    header.length = pick({0, 0, 10, 100, 4000, 70000, 0xffffffff});
    header.type = random() % 50 == 0 ? static_cast<std::uint16_t>(random()) : kTypeStream;
    header.operation = static_cast<Operation>(pick({1, 1, 1, 5, 5, 5, 5, 4, 3, 2, 6, 7, 0, 8}));
    header.flags = pick({0, 1, 2, 3, 0xffffffff});
    header.bufferAllocation = pick({0, 1, 65536, 0xffffffff});
    header.forwardCount = random() % 20 == 0 ? static_cast<std::uint32_t>(random()) : 0;
    guest().send(header, std::string(header.length < 8000 ? header.length : 8000, 'x'));
    if (header.operation == Operation::kRequest && random() % 2 == 0) {
      services.push_back(makePair());
      device_->hostAnswered({{80, header.sourcePort}, random() % 200}, std::move(services.back().near));
      if (services.size() > 50) {
        services.erase(services.begin(), services.begin() + 25);
      }
    }
    while (guest().hasPacket()) {
      guest().receive();
    }
  }
  guest().waitForSent();
  services.clear();
  client.stream.write("ping");
  EXPECT_EQ(readBytesOf(client.socket, 4), "ping");
  EXPECT_EQ(driver_.interrupts().brokenReason(), "");
}

}  // namespace
}  // namespace vmmhost::kvm::virtio::vsock::test
