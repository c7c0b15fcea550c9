// What a flood may cost at most.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace vmmhost::hostile {

// A sanitizer keeps what is freed, marks memory beside all that is touched and makes everything several times slower.
// What is looked for under one is errors of memory in the host: there the figures are shown and not judged.
#ifdef VMMHOST_SANITIZED
inline constexpr bool kFiguresAreJudged = false;
inline constexpr std::chrono::milliseconds kMaxNewcomer(10000);
#else
inline constexpr bool kFiguresAreJudged = true;
inline constexpr std::chrono::milliseconds kMaxNewcomer(2000);  // until somebody who comes meanwhile is answered
#endif
inline constexpr std::uint64_t kMaxGrowth = std::uint64_t{4} << 20;  // memory of its own of who is attacked
inline constexpr std::chrono::milliseconds kMaxLateness(40);         // of its timers; 4 on an idle machine

// How long it goes on: longer with VMMHOST_TEST_LONG=1, where what grows or piles up slowly is seen as well.
inline std::chrono::milliseconds floodTime() {
  const char* value = std::getenv("VMMHOST_TEST_LONG");
  return std::chrono::milliseconds(value != nullptr && std::string_view(value) == "1" ? 200 : 100);
}

}  // namespace vmmhost::hostile
