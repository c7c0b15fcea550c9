#include "ipc/rpc/message_stream.h"

#include <capnp/rpc.capnp.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <vector>

namespace vmmhost::rpc {
namespace {

using State = FrameHeader::State;

std::vector<std::uint8_t> table(std::initializer_list<std::uint32_t> words) {
  std::vector<std::uint8_t> bytes(words.size() * 4);
  std::memcpy(bytes.data(), words.begin(), bytes.size());
  return bytes;
}

FrameHeader parse(const std::vector<std::uint8_t>& bytes) {
  return parseFrameHeader(bytes.data(), bytes.size(), {});
}

TEST(FrameHeader, fewBytesNeedMore) {
  for (std::size_t size = 0; size < 8; ++size) {
    EXPECT_EQ(parse(std::vector<std::uint8_t>(size)).state, State::kNeedMore) << size;
  }
}

TEST(FrameHeader, oneSegmentIsComplete) {
  const FrameHeader header = parse(table({0, 5}));
  ASSERT_EQ(header.state, State::kComplete);
  EXPECT_EQ(header.segmentCount, 1u);
  EXPECT_EQ(header.headerBytes, 8u);
  EXPECT_EQ(header.bodyWords, 5u);
}

TEST(FrameHeader, evenSegmentCountsArePadded) {
  EXPECT_EQ(parse(table({1, 5})).state, State::kNeedMore);
  const FrameHeader header = parse(table({1, 5, 6, 0}));
  ASSERT_EQ(header.state, State::kComplete);
  EXPECT_EQ(header.headerBytes, 16u);
  EXPECT_EQ(header.bodyWords, 11u);
}

TEST(FrameHeader, segmentCountThatWrapsToZero_isRefused) {
  EXPECT_EQ(parse(table({0xffffffff, 0})).state, State::kRefused);
}

TEST(FrameHeader, tooManySegments_areRefused) {
  EXPECT_EQ(parse(table({16, 0})).state, State::kRefused);
}

TEST(FrameHeader, sizesThatAddUpBeyondTheLimit_areRefused) {
  EXPECT_EQ(parse(table({0, 32769})).state, State::kRefused);
  EXPECT_EQ(parse(table({2, 0xffffffff, 0xffffffff, 0xffffffff})).state, State::kRefused);
  EXPECT_EQ(parse(table({0, 32768})).state, State::kComplete);
}

class Police : public testing::Test {
 protected:
  template <typename Fill>
  const char* check(Fill fill) {
    capnp::MallocMessageBuilder builder;
    fill(builder.initRoot<capnp::rpc::Message>());
    capnp::SegmentArrayMessageReader reader(builder.getSegmentsForOutput());
    return police_.check(reader);
  }
  RpcPolice police_{Limits{.maxOpenQuestions = 3}};
};

TEST_F(Police, unfinishedCallsBeyondTheLimit_areRefused) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(check([](auto message) { message.initCall(); }), nullptr);
  }
  EXPECT_NE(check([](auto message) { message.initCall(); }), nullptr);
}

TEST_F(Police, finishedCallsMakeRoom) {
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(check([](auto message) { message.initCall(); }), nullptr);
    EXPECT_EQ(check([](auto message) { message.initFinish(); }), nullptr);
  }
}

TEST_F(Police, finishWithoutCall_isRefused) {
  EXPECT_NE(check([](auto message) { message.initFinish(); }), nullptr);
}

TEST_F(Police, kindsForMoreThanTwoParties_areRefused) {
  EXPECT_NE(check([](auto message) { message.initProvide(); }), nullptr);
  EXPECT_NE(check([](auto message) { message.initAccept(); }), nullptr);
  EXPECT_NE(check([](auto message) { message.initJoin(); }), nullptr);
}

}  // namespace
}  // namespace vmmhost::rpc
