#include "tests/conformance/subject.h"

#include <fnmatch.h>

#include <algorithm>

namespace vmmhost::conformance {

bool Subject::has(std::string_view capability) const {
  return std::find(capabilities.begin(), capabilities.end(), capability) != capabilities.end();
}

std::string Subject::place() const {
  return acceleration == "none" ? "translating" : acceleration == "emulated" ? "emulating" : acceleration;
}

Gate decide(const Case& one, const Subject& subject, const Kit& kit) {
  for (const std::string& need : one.needs) {
    if (need != kNeedsLinux && !subject.has(need)) {
      return {Gate::Kind::kRefusal, need, {}};
    }
  }
  if (std::find(one.needs.begin(), one.needs.end(), kNeedsLinux) == one.needs.end()) {
    return {};
  }
  if (kit.kernel.empty() || kit.initrd.empty()) {
    return {Gate::Kind::kAbsent, {}, "no stock kernel and initrd were given (--kernel, --initrd)"};
  }
  const bool slow = subject.instructionsPerSecond != 0 ? subject.instructionsPerSecond < kMinLinuxRate
                                                       : subject.acceleration == "emulated";
  if (slow) {
    return {Gate::Kind::kAbsent, {}, "the machine only emulates virtualization: too slow for a stock kernel"};
  }
  return {};
}

bool isSelected(const std::string& name, const std::vector<std::string>& patterns) {
  return patterns.empty() || std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
           return pattern == areaOf(name) || ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
         });
}

}  // namespace vmmhost::conformance
