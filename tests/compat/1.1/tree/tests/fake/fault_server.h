// The worker's side of the protocol with faults, instead of the SDK's, which makes none.
#pragma once

#include <span>

#include "tests/fake/fault.h"

namespace vmmhost::fake {

// As worker::serve.
int serveWithFaults(std::span<const Fault> faults);

}  // namespace vmmhost::fake
