// Names of system calls, for people who read messages.
#pragma once

#include <cstdint>
#include <string_view>

namespace vmmhost::seccomp {

// The name of a system call of x86_64, whatever this program was built for; empty: none is known.
std::string_view nameOfCallX86_64(std::int64_t number) noexcept;

}  // namespace vmmhost::seccomp
