// From a VM's name to its supervisor.
#pragma once

#include <kj/async-io.h>

#include <memory>
#include <string>

#include "host/client/control_client.h"
#include "host/runtime/directories.h"

namespace vmmhost::cli {

runtime::Directories openDirectories();

// A client of the supervisor of a living VM, its hello checked. Throws kNotFound for a name that nobody has,
// kFailedPrecondition for a VM that has ended.
std::unique_ptr<client::ControlClient> connectTo(kj::AsyncIoContext& io, const runtime::Directories& directories,
                                                 const std::string& name);

// The outcome that an ended VM left, in `into`. False when what is there cannot be read as one.
bool readOutcome(const runtime::Entry& entry, schema::Outcome::Builder into);

// "10" or "0.5" -> milliseconds, at least 1. Throws Error naming the flag.
std::uint64_t parseSeconds(const char* flag, const std::string& text);

}  // namespace vmmhost::cli
