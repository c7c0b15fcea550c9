// Faults that need nothing but the process: also before main, where nothing of a library is ready yet.
#pragma once

#include "tests/fake/fault.h"

namespace vmmhost::fake {

inline constexpr int kRpcDescriptor = 3;

// Carries out exit, die, nonsense, half, close, flood:log, grow, and, with the calling thread, silent and slow. May
// not return. Other actions do nothing.
void strikeProcess(const Fault& fault) noexcept;

// Writes whole, or as much as the other end takes within a second.
void writeAll(int descriptor, const void* data, std::size_t bytes) noexcept;

[[noreturn]] void waitForEver() noexcept;

}  // namespace vmmhost::fake
