// What a flood may cost at most.
#pragma once

#include <chrono>
#include <cstdint>

namespace vmmhost::hostile {

inline constexpr std::uint64_t kMaxGrowth = std::uint64_t{4} << 20;  // private memory of who is attacked
inline constexpr std::chrono::milliseconds kMaxLateness(20);         // of its timers
inline constexpr std::chrono::milliseconds kMaxNewcomer(2000);       // until somebody who comes meanwhile is answered
inline constexpr std::chrono::milliseconds kFloodTime(FLOOD_MILLISECONDS);

}  // namespace vmmhost::hostile
