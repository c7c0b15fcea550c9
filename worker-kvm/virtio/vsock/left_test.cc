// Connections whose other end has left: what it sent before counts.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <string>
#include <string_view>

#include "worker-kvm/virtio/vsock/test_guest.h"

namespace vmmhost::kvm::virtio::vsock::test {
namespace {

// All that the guest is told of a connection that the other side has left, up to the end of both directions.
std::string readWhatIsLeft(Guest& guest, Stream& stream) {
  std::string text;
  std::uint32_t flags = 0;
  while (flags != kShutdownBoth) {
    const Packet packet = guest.receive();
    stream.note(packet);
    text += packet.payload;
    if (packet.header.operation == Operation::kCreditRequest) {
      stream.send(Operation::kCreditUpdate);
    } else if (packet.header.operation == Operation::kShutdown) {
      flags |= packet.header.flags;
    } else if (packet.header.operation != Operation::kReadWrite) {
      ADD_FAILURE() << "operation " << static_cast<int>(packet.header.operation) << " behind " << text.size()
                    << " bytes";
      break;
    }
  }
  return text;
}

// Before the guest was asked, before it has answered, behind its answer, or without having read that; with and without
// an end of sending first.
TEST_F(VsockTest, clientThatSendsAndLeaves_isHeardToTheLastByte) {
  make();
  std::uint32_t port = 5000;
  for (const std::size_t bytes : {std::size_t{6}, std::size_t{4096}, std::size_t{4097}, std::size_t{100'000}}) {
    for (const std::size_t pieces : {1, 3}) {
      for (const int moment : {0, 1, 2, 3}) {
        for (const bool shutsDown : {false, true}) {
          SCOPED_TRACE(std::to_string(bytes) + " bytes, " + std::to_string(pieces) + " pieces, moment " +
                       std::to_string(moment) + (shutsDown ? ", half-closed" : ""));
          const std::string text = patternOf(port, bytes);
          Pair pair = makePair();
          const auto sendAndLeave = [&] {
            for (std::size_t piece = 0; piece < pieces; ++piece) {
              const std::size_t from = bytes * piece / pieces;
              writeAll(pair.far, std::string_view(text).substr(from, bytes * (piece + 1) / pieces - from));
            }
            if (shutsDown) {
              ::shutdown(pair.far.get(), SHUT_WR);
            }
            pair.far.reset();
          };
          if (moment == 0) {
            sendAndLeave();
          }
          device_->connectToGuest(std::move(pair.near), ++port);
          const Packet request = guest().expect(Operation::kRequest);
          if (moment == 1) {
            sendAndLeave();
            guest().expectSilence();
          }
          Stream stream(guest(), port, request.header.sourcePort);
          stream.note(request);
          stream.send(Operation::kResponse);
          if (moment >= 2) {
            const std::string line = "OK " + std::to_string(request.header.sourcePort) + "\n";
            std::string read(line.size(), '\0');
            EXPECT_EQ(::recv(pair.far.get(), read.data(), read.size(), moment == 2 ? MSG_WAITALL : MSG_PEEK),
                      static_cast<ssize_t>(line.size()));
            EXPECT_EQ(read, line);
            sendAndLeave();
          }
          EXPECT_EQ(readWhatIsLeft(guest(), stream), text);
          stream.send(Operation::kReset);
          guest().expectSilence();
          EXPECT_EQ(device_->connections(), 0u);
        }
      }
    }
  }
}

TEST_F(VsockTest, serviceThatSendsAndLeaves_isHeardToTheLastByte) {
  make();
  std::uint32_t port = 5000;
  for (const std::size_t bytes : {std::size_t{6}, std::size_t{100'000}}) {
    SCOPED_TRACE(bytes);
    const std::string text = patternOf(port, bytes);
    Stream stream(guest(), ++port, 80);
    stream.send(Operation::kRequest);
    const AskedHost::Question question = host_.next();
    Pair pair = makePair();
    writeAll(pair.far, text);
    pair.far.reset();
    device_->hostAnswered(question.ticket, std::move(pair.near));
    stream.expect(Operation::kResponse);
    EXPECT_EQ(readWhatIsLeft(guest(), stream), text);
    stream.send(Operation::kReset);
    guest().expectSilence();
  }
}

TEST_F(VsockTest, clientThatHasLeft_isNotSentToAnyMore) {
  make();
  Pair pair = makePair();
  writeAll(pair.far, "last words");
  pair.far.reset();
  device_->connectToGuest(std::move(pair.near), 5000);
  const Packet request = guest().expect(Operation::kRequest);
  Stream stream(guest(), 5000, request.header.sourcePort);
  stream.note(request);
  // Without credit, so that the device has not told everything and closed the connection before it hears of that.
  stream.frame().bufferAllocation = 0;
  stream.send(Operation::kResponse);
  stream.write("too late");  // lost, and no reason to lose what came
  stream.frame().bufferAllocation = Stream::kAllocation;
  stream.send(Operation::kCreditUpdate);
  EXPECT_EQ(readWhatIsLeft(guest(), stream), "last words");
  stream.write("much too late");  // everything has been told
  guest().expectSilence();
  EXPECT_EQ(device_->connections(), 1u);
  stream.send(Operation::kReset);
  guest().expectSilence();
  EXPECT_EQ(device_->connections(), 0u);
}

}  // namespace
}  // namespace vmmhost::kvm::virtio::vsock::test
