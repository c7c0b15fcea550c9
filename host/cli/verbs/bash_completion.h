// Completion of command lines by bash.
#pragma once

#include <span>
#include <string>

#include "host/cli/base/verb.h"

namespace vmmhost::cli {

// The script, which asks the command itself for names: `vmmhost completion vms`, `live-vms` or `backends`.
std::string bashCompletion(std::span<const Verb* const> verbs);

}  // namespace vmmhost::cli
