// Limits of processes: what a worker is given, as far as the caller may give it, and what to do where that is too
// little.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "vmmhost/error.h"

namespace vmmhost::spawn {

// RLIMIT_*. Where a limit of this process, the hard one, is lower than what `taker` takes: an error that names the
// limit, both values, and what mends it. `needed` is a number of bytes, processes or descriptors, as the limit has it.
std::optional<Error> tooLow(std::uint32_t resource, std::uint64_t needed, const std::string& taker);

// The same for what the host itself takes, a command and a supervisor: the first limit that is too low.
std::optional<Error> tooLowForTheHost();

// Memory has run out: an error that names the limit of this process that it ran into, if it was one.
Error outOfMemory();

// Raises soft limits of this process to what the host itself takes, as far as the hard ones let it. What it starts
// inherits them.
void raiseOwnLimits() noexcept;

}  // namespace vmmhost::spawn
