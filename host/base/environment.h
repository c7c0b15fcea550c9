// Variables of the environment.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace vmmhost {

// The value of a variable; nothing where it is not set.
using Variables = std::function<std::optional<std::string>(const char* name)>;
// Variables of this process; none of them in a set-user-id program.
std::optional<std::string> processVariable(const char* name);

// `path`, which begins with '/', below a folder that a variable names: "/" is a folder like any other, and slashes at
// the end mean nothing.
std::string below(std::string folder, const char* path);

}  // namespace vmmhost
