#include "host/vm/event_rate.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace vmmhost::vm {
namespace {

const kj::TimePoint kBegin = kj::origin<kj::TimePoint>();

// A VM that is reset ten times a second for a day, say, or panics once in a while for a year.
TEST(EventRate, steadyEvents_areBorneForEver) {
  for (const unsigned perSecond : {10U, EventRate::kPerSecond}) {
    EventRate rate(kBegin);
    for (std::int64_t event = 0; event < 1'000'000; ++event) {
      ASSERT_TRUE(rate.take(kBegin + event * kj::SECONDS / perSecond)) << event << " at " << perSecond << " a second";
    }
  }
}

TEST(EventRate, burst_isBorneOnce_andAgainWhenItHasBeenQuiet) {
  EventRate rate(kBegin);
  kj::TimePoint now = kBegin;
  for (int round = 0; round < 3; ++round) {
    for (unsigned event = 0; event < EventRate::kBurst; ++event) {
      ASSERT_TRUE(rate.take(now)) << event;
    }
    EXPECT_FALSE(rate.take(now));
    now += 1 * kj::HOURS;
  }
}

TEST(EventRate, moreThanTheRate_endsAtSomeTime) {
  EventRate rate(kBegin);
  std::int64_t event = 0;
  while (event < 100'000 && rate.take(kBegin + event * kj::SECONDS / (2 * EventRate::kPerSecond))) {
    ++event;
  }
  EXPECT_LT(event, 2 * EventRate::kBurst + 2);
  EXPECT_GE(event, 2 * EventRate::kBurst - 2);
}

}  // namespace
}  // namespace vmmhost::vm
