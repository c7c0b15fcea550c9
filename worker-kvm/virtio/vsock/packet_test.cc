#include "worker-kvm/virtio/vsock/packet.h"

#include <gtest/gtest.h>

#include <string>

#include "worker-kvm/virtio/vsock/byte_queue.h"
#include "worker-kvm/virtio/vsock/credit.h"

namespace vmmhost::kvm::virtio::vsock {
namespace {

constexpr std::uint64_t kGuestCid = 7;

Header headerOf(Operation operation, std::uint32_t length = 0) {
  Header header;
  header.sourceCid = kGuestCid;
  header.destinationCid = kHostCid;
  header.sourcePort = 1000;
  header.destinationPort = 52;
  header.operation = operation;
  header.length = length;
  return header;
}

iovec piece(std::string& text) {
  return {text.data(), text.size()};
}

TEST(VsockPacket, header_isLaidOutAsSpecified) {
  Header header;
  header.sourceCid = 0x0102030405060708;
  header.destinationCid = 2;
  header.sourcePort = 0x11121314;
  header.destinationPort = 0x21222324;
  header.length = 0x31323334;
  header.type = 0x4142;
  header.operation = static_cast<Operation>(0x5152);
  header.flags = 0x61626364;
  header.bufferAllocation = 0x71727374;
  header.forwardCount = 0x81828384;
  const HeaderBytes expected = {0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, 2,    0,    0,
                                0,    0,    0,    0,    0,    0x14, 0x13, 0x12, 0x11, 0x24, 0x23,
                                0x22, 0x21, 0x34, 0x33, 0x32, 0x31, 0x42, 0x41, 0x52, 0x51, 0x64,
                                0x63, 0x62, 0x61, 0x74, 0x73, 0x72, 0x71, 0x84, 0x83, 0x82, 0x81};
  EXPECT_EQ(formatHeader(header), expected);
  EXPECT_EQ(parseHeader(expected), header);
}

TEST(VsockPacket, operationsThatThereAre_areAccepted_othersReset) {
  for (std::uint16_t operation = 1; operation <= 7; ++operation) {
    EXPECT_EQ(judge(headerOf(static_cast<Operation>(operation)), 0, kGuestCid), Verdict::kAccept) << operation;
  }
  for (const int operation : {0, 8, 255, 65535}) {
    EXPECT_EQ(judge(headerOf(static_cast<Operation>(operation)), 0, kGuestCid), Verdict::kReset) << operation;
  }
}

TEST(VsockPacket, payloadThatIsNotThere_isReset) {
  EXPECT_EQ(judge(headerOf(Operation::kReadWrite, 100), 100, kGuestCid), Verdict::kAccept);
  EXPECT_EQ(judge(headerOf(Operation::kReadWrite, 100), 4096, kGuestCid), Verdict::kAccept);
  EXPECT_EQ(judge(headerOf(Operation::kReadWrite, 101), 100, kGuestCid), Verdict::kReset);
  EXPECT_EQ(judge(headerOf(Operation::kReadWrite, 0xffffffff), 0, kGuestCid), Verdict::kReset);
}

TEST(VsockPacket, otherKindOfSocket_isReset_otherAddresses_areDropped) {
  Header header = headerOf(Operation::kRequest);
  header.type = 2;
  EXPECT_EQ(judge(header, 0, kGuestCid), Verdict::kReset);
  header.sourceCid = kGuestCid + 1;
  EXPECT_EQ(judge(header, 0, kGuestCid), Verdict::kDrop);
  header = headerOf(Operation::kRequest);
  header.destinationCid = kGuestCid;
  EXPECT_EQ(judge(header, 0, kGuestCid), Verdict::kDrop);
  header.destinationCid = kHostCid | std::uint64_t{1} << 32;  // 5.10.6: reserved bits
  EXPECT_EQ(judge(header, 0, kGuestCid), Verdict::kDrop);
}

TEST(VsockPacket, slices_crossPieces_andEndWithThem) {
  std::string one = "abc";
  std::string two = "defgh";
  const iovec whole[] = {piece(one), piece(two)};
  const auto sliced = [&](std::uint64_t offset, std::uint64_t length) {
    std::vector<iovec> part;
    const std::uint64_t taken = slice(whole, offset, length, part);
    std::string text;
    for (const iovec& each : part) {
      EXPECT_NE(each.iov_len, 0u);
      text.append(static_cast<const char*>(each.iov_base), each.iov_len);
    }
    EXPECT_EQ(taken, text.size());
    return text;
  };
  EXPECT_EQ(sliced(0, 8), "abcdefgh");
  EXPECT_EQ(sliced(2, 3), "cde");
  EXPECT_EQ(sliced(3, 100), "defgh");
  EXPECT_EQ(sliced(8, 1), "");
  EXPECT_EQ(sliced(0, 0), "");
  const auto first = [&](std::uint64_t offset, std::uint64_t length) {
    const iovec found = firstOfSlice(whole, offset, length);
    return std::string(static_cast<const char*>(found.iov_base), found.iov_len);
  };
  EXPECT_EQ(first(0, 8), "abc");
  EXPECT_EQ(first(2, 3), "c");
  EXPECT_EQ(first(3, 2), "de");
  EXPECT_EQ(first(7, 100), "h");
  EXPECT_EQ(firstOfSlice(whole, 8, 1).iov_len, 0u);
}

TEST(VsockCredit, guestThatSendsMoreThanItMay_isFound) {
  OwnCredit credit(1000);
  EXPECT_TRUE(credit.receive(600));
  EXPECT_FALSE(credit.receive(401));
  EXPECT_TRUE(credit.receive(400));
  EXPECT_FALSE(credit.receive(1));
  credit.forward(1);
  EXPECT_FALSE(credit.receive(2));
  EXPECT_TRUE(credit.receive(1));
}

TEST(VsockCredit, update_isWantedBeforeTheGuestStops_andOnceOnly) {
  OwnCredit credit(1000);
  ASSERT_TRUE(credit.receive(1000));
  credit.forward(499);
  EXPECT_FALSE(credit.wantsUpdate());
  credit.forward(1);
  EXPECT_TRUE(credit.wantsUpdate());
  Header header;
  credit.stamp(header);
  EXPECT_EQ(header.bufferAllocation, 1000u);
  EXPECT_EQ(header.forwardCount, 500u);
  EXPECT_FALSE(credit.wantsUpdate());
}

TEST(VsockCredit, counters_wrap) {
  OwnCredit own(1 << 16);
  PeerCredit peer;
  Header header;
  header.bufferAllocation = 1 << 16;
  for (int i = 0; i < 3 * (1 << 16); ++i) {
    ASSERT_TRUE(own.receive(1 << 16));
    own.forward(1 << 16);
    ASSERT_TRUE(peer.update(header));
    ASSERT_EQ(peer.available(), std::uint32_t{1} << 16);
    peer.send(1 << 16);
    header.forwardCount += 1 << 16;
  }
}

TEST(VsockCredit, guestThatHadMoreThanWasSent_isFound_oldNewsIsNot) {
  PeerCredit credit;
  Header header;
  header.bufferAllocation = 1000;
  EXPECT_TRUE(credit.update(header));
  credit.send(300);
  EXPECT_EQ(credit.available(), 700u);
  header.forwardCount = 301;
  EXPECT_FALSE(credit.update(header));
  header.forwardCount = 200;
  EXPECT_TRUE(credit.update(header));
  EXPECT_EQ(credit.available(), 900u);
  header.forwardCount = 100;  // overtaken
  EXPECT_TRUE(credit.update(header));
  EXPECT_EQ(credit.available(), 900u);
}

TEST(VsockCredit, lessRoomThanIsUnderWay_isNone) {
  PeerCredit credit;
  Header header;
  header.bufferAllocation = 1000;
  EXPECT_TRUE(credit.update(header));
  credit.send(800);
  header.bufferAllocation = 500;
  EXPECT_TRUE(credit.update(header));
  EXPECT_EQ(credit.available(), 0u);
  header.bufferAllocation = 0xffffffff;
  EXPECT_TRUE(credit.update(header));
  EXPECT_EQ(credit.available(), 0xffffffffu - 800);
}

TEST(VsockByteQueue, bytes_comeOutInOrder_howeverTheyWentIn) {
  ByteQueue queue;
  std::string in;
  std::string out;
  std::uint32_t next = 1;
  for (int round = 0; round < 2000; ++round) {
    next = next * 1664525 + 1013904223;
    std::string one(next % 977, static_cast<char>('a' + round % 26));
    std::string two(next % 331, static_cast<char>('A' + round % 26));
    const iovec pieces[] = {piece(one), piece(two)};
    const std::uint64_t offset = next % (one.size() + two.size() + 1);
    ASSERT_TRUE(queue.append(pieces, offset));
    in += (one + two).substr(offset);
    iovec front[2];
    std::string waiting;
    for (std::size_t i = 0, count = queue.front(front); i < count; ++i) {
      ASSERT_NE(front[i].iov_len, 0u);
      waiting.append(static_cast<const char*>(front[i].iov_base), front[i].iov_len);
    }
    ASSERT_EQ(waiting.size(), queue.size());
    const std::size_t taken = round % 100 == 99 ? waiting.size() : std::min<std::size_t>(waiting.size(), next % 900);
    out += waiting.substr(0, taken);
    queue.consume(taken);
  }
  EXPECT_EQ(out + in.substr(out.size()), in);
  EXPECT_EQ(queue.size(), in.size() - out.size());
}

}  // namespace
}  // namespace vmmhost::kvm::virtio::vsock
