#include "host/base/clock.h"

#include <time.h>

namespace vmmhost {
namespace {

std::uint64_t nanoseconds(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace

std::uint64_t monotonicNanoseconds() {
  return nanoseconds(CLOCK_MONOTONIC);
}

std::int64_t unixMilliseconds() {
  return static_cast<std::int64_t>(nanoseconds(CLOCK_REALTIME) / 1'000'000u);
}

}  // namespace vmmhost
