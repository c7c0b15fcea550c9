// System calls for the tests of policies: evaluated against the tables and carried out in a child.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "vmmhost/seccomp.h"

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

inline constexpr int kExecutable = 250;  // of the programs below
inline constexpr std::uint32_t kX32 = 0x40000000;
inline constexpr unsigned kNoExecSeal = 0x0008;  // MFD_NOEXEC_SEAL, Linux 6.3

std::vector<sock_filter> programOf(const char* policy);
std::vector<sock_filter> programOf(std::uint64_t grants);
// For workers of plugins that were built for version 1.1 of the interface.
std::vector<sock_filter> oldProgramOf(const char* policy, bool hasProc = false);

}  // namespace vmmhost::seccomp
