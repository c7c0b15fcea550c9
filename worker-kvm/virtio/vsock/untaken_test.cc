// What is read from a socket and left in it (Connection::takeUntaken).
#include <gtest/gtest.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <cstring>
#include <thread>

#include "worker-kvm/virtio/vsock/test_guest.h"

namespace vmmhost::kvm::virtio::vsock::test {
namespace {

// What a socket has sent that is not taken out of its peer.
int untakenOf(const Fd& socket) {
  int bytes = 0;
  EXPECT_EQ(::ioctl(socket.get(), SIOCOUTQ, &bytes), 0);
  return bytes;
}
bool isTakenInTime(const Fd& socket) {
  const auto end = std::chrono::steady_clock::now() + kDeadline;
  while (untakenOf(socket) != 0 && std::chrono::steady_clock::now() < end) {
    std::this_thread::yield();
  }
  return untakenOf(socket) == 0;
}

TEST_F(VsockTest, littleThatIsRead_staysInTheSocket_untilThereAreAnswers) {
  options_.limits.takeTimeout = std::chrono::hours(1);
  make();
  Client client = connectClient(5000);
  const auto exchange = [&](const std::string& text) {
    writeAll(client.socket, text);
    EXPECT_EQ(client.stream.read(text.size()), text);
    const bool isUntaken = untakenOf(client.socket) > 0;
    client.stream.write("answer");
    EXPECT_EQ(readBytesOf(client.socket, 6), "answer");
    return isUntaken;
  };
  for (unsigned i = 1; i < 16; ++i) {
    EXPECT_TRUE(exchange(std::to_string(i)));
    EXPECT_GT(untakenOf(client.socket), 0) << i;
  }
  EXPECT_TRUE(exchange("16"));
  EXPECT_TRUE(isTakenInTime(client.socket)) << "so many reads are taken with an answer";
  EXPECT_TRUE(exchange(std::string(3000, 'x')));
  EXPECT_TRUE(isTakenInTime(client.socket)) << "so many bytes are taken with an answer";
  exchange("begin");
  exchange(patternOf(0, 100'000));
  EXPECT_FALSE(exchange(patternOf(0, 100'000))) << "much is taken at once";
}

TEST_F(VsockTest, littleThatIsRead_isTakenAfterAWhile_thoughNobodyAnswers) {
  make();
  Client client = connectClient(5000);
  for (int round = 0; round < 3; ++round) {
    writeAll(client.socket, "x");
    EXPECT_EQ(client.stream.read(1), "x");
    EXPECT_TRUE(isTakenInTime(client.socket));
  }
}

TEST_F(VsockTest, littleAndMuchInTurn_arriveInOrder) {
  make();
  Client client = connectClient(5000);
  std::size_t at = 0;
  for (unsigned round = 0; round < 200; ++round) {
    for (const std::size_t bytes : {1, 100, 4095, 4096, 4097, 3, 70'000, 5}) {
      const std::string text = patternOf(at, bytes);
      at += bytes;
      writeAll(client.socket, text);
      if (round % 2 == 0) {
        ASSERT_EQ(client.stream.read(bytes), text);
      }
      if (round % 3 == 0) {
        client.stream.write("a");
        ASSERT_EQ(readBytesOf(client.socket, 1), "a");
      }
      if (round % 2 != 0) {
        ASSERT_EQ(client.stream.read(bytes), text);
      }
    }
  }
  EXPECT_TRUE(isTakenInTime(client.socket));
}

TEST_F(VsockTest, descriptorsAmongLittle_areDropped_andNoByteIsLost) {
  make();
  Client client = connectClient(5000);
  Pair sent = makePair();
  std::string expected;
  for (int i = 0; i < 100; ++i) {
    std::string text = patternOf(expected.size(), 1 + static_cast<std::size_t>(i) % 7 * 90);
    expected += text;
    if (i % 3 != 0) {
      writeAll(client.socket, text);
      continue;
    }
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    iovec piece{text.data(), text.size()};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int descriptor = sent.near.get();
    std::memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
    ASSERT_EQ(::sendmsg(client.socket.get(), &message, MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  EXPECT_EQ(client.stream.read(expected.size()), expected);
  EXPECT_TRUE(isTakenInTime(client.socket));
  sent.near.reset();
  EXPECT_EQ(readToEnd(sent.far), "") << "nobody holds the other end";
}

TEST_F(VsockTest, guestThatClosesWhileLittleIsUntaken_isAnOrderlyEnd) {
  options_.limits.takeTimeout = std::chrono::hours(1);
  make();
  Client client = connectClient(5000);
  writeAll(client.socket, "x");
  EXPECT_EQ(client.stream.read(1), "x");
  EXPECT_GT(untakenOf(client.socket), 0);
  client.stream.send(Operation::kShutdown, kShutdownBoth);
  client.stream.expect(Operation::kReset);
  EXPECT_EQ(readToEnd(client.socket), "");
}

}  // namespace
}  // namespace vmmhost::kvm::virtio::vsock::test
