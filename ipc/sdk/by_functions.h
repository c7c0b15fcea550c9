// Abilities of a machine that says by functions which it has, as all did up to version 1.2 of the protocol.
#pragma once

#include <memory>

#include "vmmhost/worker/worker.h"

namespace vmmhost::worker {

// An object for each; they keep the machine.
void offerByFunctions(const std::shared_ptr<Machine>& machine, schema::Abilities::Builder abilities);

}  // namespace vmmhost::worker
