// The backend under test, and what decides whether a case is run on it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tests/conformance/case.h"

namespace vmmhost::conformance {

struct Subject {
  std::string name;
  std::string path;  // of the plugin's file
  std::string version;
  std::string description;
  std::string acceleration;  // "none", "emulated", "hardware"
  std::string summary;
  std::vector<std::string> capabilities;
  std::uint64_t instructionsPerSecond = 0;  // of a guest; 0: not measured

  bool has(std::string_view capability) const;
  // Where its guests run, as a word: "translating", "emulating", "hardware".
  std::string place() const;
};

// Files that the cases' guests come from.
struct Kit {
  std::string guests;  // folder of the bare-metal guests
  std::string kernel;  // stock Linux and an initrd made by guest/build; empty: none were given
  std::string initrd;
};

struct Gate {
  enum class Kind { kRun, kRefusal, kAbsent };
  Kind kind = Kind::kRun;
  std::string capability;  // kRefusal: not advertised, and has to be refused
  std::string reason;      // kAbsent: why it cannot be run here, for people
};

// A guest that runs slower than this does not boot a stock kernel within a case's deadline.
inline constexpr std::uint64_t kMinLinuxRate = 20'000'000;  // instructions a second

// What is not advertised comes first: that it is refused can be observed without the rest.
Gate decide(const Case& one, const Subject& subject, const Kit& kit);

// Whether a case is selected: `pattern` is a shell pattern (fnmatch) for its whole name, or its area.
bool isSelected(const std::string& name, const std::vector<std::string>& patterns);

}  // namespace vmmhost::conformance
