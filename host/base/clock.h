#pragma once

#include <cstdint>

namespace vmmhost {

std::uint64_t monotonicNanoseconds();  // CLOCK_MONOTONIC
std::int64_t unixMilliseconds();       // CLOCK_REALTIME

}  // namespace vmmhost
