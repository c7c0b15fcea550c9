// What a backend has to refuse because it does not advertise it.
#pragma once

#include <string>
#include <string_view>

#include "tests/conformance/context.h"

namespace vmmhost::conformance {

// Uses what `capability` stands for and checks that it is refused as `unsupported`, with the field or verb named (or,
// where nothing can be refused, that it is not there). Throws Failure if it is served after all. What was observed.
std::string observeRefusal(Context& context, const std::string& capability);

// Whether there is a way to observe it.
bool knowsRefusalOf(std::string_view capability);

}  // namespace vmmhost::conformance
