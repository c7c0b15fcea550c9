// System calls for the tests of policies: evaluated against the tables and carried out in a child.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace vmmhost::seccomp {

struct Call {
  const char* name = "";
  std::uint32_t number = 0;
  std::array<std::uint64_t, 6> args{};
};

// What no worker may do, whatever its policy: none of these calls is ever carried out.
std::vector<Call> deniedToAll();
// What a static worker may not do besides.
std::vector<Call> deniedToStatic();

}  // namespace vmmhost::seccomp
