// JSON text that is written, not read.
#pragma once

#include <string>
#include <string_view>

namespace qemubackend {

// A JSON string literal. `text` is UTF-8; control characters are escaped.
std::string jsonString(std::string_view text);

}  // namespace qemubackend
