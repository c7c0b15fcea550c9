// Programs that a jailed process may execute besides its own: files that the host opened and checked, on descriptors
// that nothing else can come to have.
#pragma once

#include <cstddef>

namespace vmmhost::programs {

inline constexpr std::size_t kMaxPrograms = 8;

// In the process: the descriptor of program number `index` of its plan, from 0 on, to be executed by
// execveat(descriptor, "", argv, envp, AT_EMPTY_PATH), or -1 if the plan has none of that number. From this call on it
// is closed by whatever the process executes, so that a program holds neither itself nor the others. Async-signal-safe;
// any thread.
int descriptorOf(std::size_t index) noexcept;

}  // namespace vmmhost::programs
