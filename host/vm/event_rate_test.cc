#include "host/vm/event_rate.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace vmmhost::vm {
namespace {

const kj::TimePoint kBegin = kj::origin<kj::TimePoint>();
constexpr kj::Duration kNone = 0 * kj::NANOSECONDS;

// A VM that is reset ten times a second for a day, say, or panics once in a while for a year.
TEST(EventRate, steadyEvents_areBorneForEver) {
  for (const unsigned perSecond : {10U, EventRate::kPerSecond}) {
    EventRate rate(kBegin);
    for (std::int64_t event = 0; event < 1'000'000; ++event) {
      ASSERT_TRUE(rate.take(kBegin + event * kj::SECONDS / perSecond) == kNone) << event << " at " << perSecond;
    }
  }
}

TEST(EventRate, burst_isBorneOnce_andAgainWhenItHasBeenQuiet) {
  EventRate rate(kBegin);
  kj::TimePoint now = kBegin;
  for (int round = 0; round < 3; ++round) {
    for (unsigned event = 0; event < EventRate::kBurst; ++event) {
      ASSERT_TRUE(rate.take(now) == kNone) << event;
    }
    EXPECT_TRUE(rate.take(now) > kNone);
    now += 1 * kj::HOURS;
  }
}

TEST(EventRate, whatIsBeyondIt_waitsItsTurn) {
  EventRate rate(kBegin);
  for (unsigned event = 0; event < EventRate::kBurst; ++event) {
    rate.take(kBegin);
  }
  kj::Duration before = kNone;
  for (int event = 0; event < 50; ++event) {
    const kj::Duration wait = rate.take(kBegin);
    EXPECT_TRUE(wait > before);
    before = wait;
  }
  EXPECT_TRUE(before <= 50 * kj::SECONDS / EventRate::kPerSecond);
  // Who waits for each goes on for ever, and never waits for long.
  kj::TimePoint now = kBegin + before;
  for (int event = 0; event < 100'000; ++event) {
    const kj::Duration wait = rate.take(now);
    ASSERT_TRUE(wait <= 1 * kj::MILLISECONDS) << event;
    now += wait;
  }
}

}  // namespace
}  // namespace vmmhost::vm
