// The command line: words to a verb, what comes of it to an exit code.
#pragma once

#include <span>

#include "host/cli/base/verb.h"

namespace vmmhost::cli {

// Carries out the verb that the words behind argv[0] ask for, or prints help. Returns the exit code of the process.
// What is wrong with them, and what the verb throws, is reported as text or, with --json, as a document.
int runCommandLine(std::span<const Verb* const> verbs, int argc, const char* const* argv);

}  // namespace vmmhost::cli
