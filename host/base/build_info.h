// The version of this build, and what builds tell each other of theirs.
#pragma once

#include <cstddef>
#include <string_view>

namespace vmmhost {

inline constexpr std::string_view kBuild = "vmmhost " VMMHOST_VERSION;

// Of what another process tells of its build so much is kept, in bytes, made printable().
inline constexpr std::size_t kMaxBuildBytes = 64;
static_assert(kBuild.size() <= kMaxBuildBytes);

enum class BuildAge {
  kSame,   // the very text
  kOlder,  // of the same program with a lower version number, or from before builds were told (empty)
  kOther,  // anything else: newer, of another make, without a number
};

// `theirs` beside `ours`, both "NAME NUMBER.NUMBER..." and maybe more. Numbers that are not there count as 0.
BuildAge compareBuilds(std::string_view theirs, std::string_view ours = kBuild) noexcept;

}  // namespace vmmhost
