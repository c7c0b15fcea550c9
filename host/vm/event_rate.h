// How often a worker may tell of something.
#pragma once

#include <kj/time.h>

#include <algorithm>
#include <cstdint>

namespace vmmhost::vm {

// A burst, and so many a second for as long as it lives. What a VM that is reset again and again tells of fits in.
class EventRate {
 public:
  static constexpr unsigned kBurst = 4096;
  static constexpr unsigned kPerSecond = 256;

  explicit EventRate(kj::TimePoint now) : last_(now) {}

  // One more. False: that is more than any VM needs. Time does not run backwards.
  bool take(kj::TimePoint now) {
    constexpr kj::Duration kOne = 1 * kj::SECONDS / kPerSecond;
    const auto gained = static_cast<unsigned>(std::min<std::int64_t>((now - last_) / kOne, kBurst));
    last_ = gained == kBurst ? now : last_ + gained * kOne;
    left_ = std::min(left_ + gained, kBurst);
    if (left_ == 0) {
      return false;
    }
    --left_;
    return true;
  }

 private:
  kj::TimePoint last_;
  unsigned left_ = kBurst;
};

}  // namespace vmmhost::vm
