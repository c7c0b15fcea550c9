// What verbs print that do something to a VM.
#pragma once

#include <string>

#include "vmmhost/schema/host.capnp.h"

namespace vmmhost::cli {

// With --json the VM's name and what was done to it ("paused"), or how it ended. Else nothing.
void printDone(const std::string& name, const char* done, bool json);
void printOutcome(const std::string& name, schema::Outcome::Reader outcome, bool json);

}  // namespace vmmhost::cli
