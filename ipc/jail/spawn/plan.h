// From what is asked for to what the stub carries out. Internal.
#pragma once

#include <string>
#include <vector>

#include "ipc/jail/spawn/spawn.h"
#include "ipc/jail/spawn/stub.h"

namespace vmmhost::spawn {

// All but the descriptors that are made at the start itself. `argvStorage` holds what the plan's argv points to, and
// outlives it. Throws Error for what cannot be had here, or must not be asked for.
Plan makePlan(const Request& request, std::vector<std::string>& argvStorage);

// How a process of this plan has to look from outside; its pid is not known yet.
confinement::Expectation expectationOf(const Request& request, const Plan& plan);

// request_linux.cc. Throws Error for combinations that must not be: what only a fault of ours can ask for, and what a
// user gave up that the process cannot do without.
void validate(const Request& request);

// What a user can do who accepts a jail without this part; empty for null.
std::string withoutHint(const char* part);

}  // namespace vmmhost::spawn
