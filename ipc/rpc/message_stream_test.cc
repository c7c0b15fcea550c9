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
  EXPECT_STREQ(parse(table({0xffffffff, 0})).reason, "a message with too many segments");
}

TEST(FrameHeader, tooManySegments_areRefused) {
  EXPECT_EQ(parse(table({16, 0})).state, State::kRefused);
  EXPECT_STREQ(parse(table({16, 0})).reason, "a message with too many segments");
  EXPECT_EQ(parse(table({15, 0})).state, State::kNeedMore);
}

TEST(FrameHeader, sizesThatAddUpBeyondTheLimit_areRefused) {
  EXPECT_EQ(parse(table({0, 32769})).state, State::kRefused);
  EXPECT_STREQ(parse(table({0, 32769})).reason, "a message over the size limit");
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
    return police_.check(reader, builder.sizeInWords());
  }
  const char* call(std::uint32_t id, unsigned words = 0, unsigned capabilities = 0) {
    return check([&](auto message) {
      auto call = message.initCall();
      call.setQuestionId(id);
      call.getParams().getContent().template initAs<capnp::Data>(words * 8);
      call.getParams().initCapTable(capabilities);
    });
  }
  const char* finish(std::uint32_t id) {
    return check([&](auto message) { message.initFinish().setQuestionId(id); });
  }
  void answer(std::uint32_t id) {
    capnp::MallocMessageBuilder builder;
    builder.initRoot<capnp::rpc::Message>().initReturn().setAnswerId(id);
    police_.noteSent(builder.getSegmentsForOutput());
  }
  RpcPolice police_{Limits{.maxOpenQuestions = 3, .maxCapabilities = 4, .flowLimitWords = 200}};
};

TEST_F(Police, unfinishedCallsBeyondTheLimit_areRefused) {
  for (std::uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(call(i), nullptr);
    answer(i);
  }
  EXPECT_STREQ(call(3), "too many unfinished calls");
}

TEST_F(Police, callsThatTheirCallerGaveUp_countUntilTheyAreAnswered) {
  for (std::uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(call(i), nullptr);
    EXPECT_EQ(finish(i), nullptr);
  }
  EXPECT_STREQ(call(3), "too many calls that it did not wait for");
}

TEST_F(Police, finishedAndAnsweredCallsMakeRoom) {
  for (std::uint32_t i = 0; i < 100; ++i) {
    EXPECT_EQ(call(i % 2), nullptr);
    answer(i % 2);
    EXPECT_EQ(finish(i % 2), nullptr);
  }
}

TEST_F(Police, numberOfACallThatIsUnderWay_isRefused) {
  EXPECT_EQ(call(7), nullptr);
  EXPECT_EQ(finish(7), nullptr);
  EXPECT_STREQ(call(7), "a call with a number that is in use");
}

TEST_F(Police, callBehindTooMuchUnanswered_isRefused) {
  EXPECT_EQ(call(0, 500), nullptr);  // a single one may be larger
  EXPECT_STREQ(call(1), "too much in calls that are not answered yet");
}

TEST_F(Police, answersMakeRoomForMore) {
  EXPECT_EQ(call(0, 500), nullptr);
  answer(0);
  EXPECT_EQ(call(1), nullptr);
}

TEST_F(Police, capabilitiesBeyondTheLimit_areRefused) {
  EXPECT_EQ(call(0, 0, 4), nullptr);
  EXPECT_STREQ(call(1, 0, 5), "a message with too many capabilities");
  EXPECT_STREQ(check([](auto message) { message.initReturn().initResults().initCapTable(5); }),
               "a message with too many capabilities");
}

TEST_F(Police, unknownKind_isRefused) {
  capnp::MallocMessageBuilder builder;
  builder.initRoot<capnp::rpc::Message>().initRelease();
  auto words = kj::heapArray<capnp::word>(builder.getSegmentsForOutput()[0]);
  reinterpret_cast<std::uint16_t*>(words.begin() + 1)[0] = 99;
  const kj::ArrayPtr<const capnp::word> segment = words;
  capnp::SegmentArrayMessageReader reader(kj::arrayPtr(&segment, 1));
  EXPECT_STREQ(police_.check(reader, words.size()), "a message of an unknown kind");
}

TEST_F(Police, ownCallsCountUntilThePeerAnswers) {
  capnp::MallocMessageBuilder builder;
  builder.initRoot<capnp::rpc::Message>().initCall();
  police_.noteSent(builder.getSegmentsForOutput());
  EXPECT_EQ(police_.ownCalls(), 1u);
  EXPECT_EQ(check([](auto message) { message.initReturn(); }), nullptr);
  EXPECT_EQ(police_.ownCalls(), 0u);
}

TEST_F(Police, finishWithoutCall_isRefused) {
  EXPECT_STREQ(check([](auto message) { message.initFinish(); }), "a finish without a call");
}

TEST_F(Police, kindsForMoreThanTwoParties_areRefused) {
  constexpr char kWhy[] = "a message kind that a two-party connection has no use for";
  EXPECT_STREQ(check([](auto message) { message.initProvide(); }), kWhy);
  EXPECT_STREQ(check([](auto message) { message.initAccept(); }), kWhy);
  EXPECT_STREQ(check([](auto message) { message.initJoin(); }), kWhy);
}

}  // namespace
}  // namespace vmmhost::rpc
