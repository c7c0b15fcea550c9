// How often a worker may tell of something.
#pragma once

#include <kj/time.h>

#include <algorithm>

namespace vmmhost::vm {

// A burst, and so many a second for as long as it lives. What a VM that is reset again and again tells of fits in.
class EventRate {
 public:
  static constexpr unsigned kBurst = 4096;
  static constexpr unsigned kPerSecond = 1024;

  explicit EventRate(kj::TimePoint now) : takenUntil_(now - kBurst * kOne) {}

  // One more. How long it lasts until that is within the rate; 0: it is. Time does not run backwards.
  kj::Duration take(kj::TimePoint now) {
    takenUntil_ = std::max(takenUntil_, now - kBurst * kOne) + kOne;
    return std::max<kj::Duration>(takenUntil_ - now, 0 * kj::NANOSECONDS);
  }

 private:
  static constexpr kj::Duration kOne = 1 * kj::SECONDS / kPerSecond;

  kj::TimePoint takenUntil_;  // at the steady rate
};

}  // namespace vmmhost::vm
