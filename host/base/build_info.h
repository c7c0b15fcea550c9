// The version of this build.
#pragma once

#include <string_view>

namespace vmmhost {

inline constexpr std::string_view kBuild = "vmmhost " VMMHOST_VERSION;

}  // namespace vmmhost
