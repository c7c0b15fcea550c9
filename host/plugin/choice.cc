#include "host/plugin/choice.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <tuple>

namespace vmmhost::plugin {
namespace {

// Smaller is better. Translation is many times faster than a hypervisor interface that emulates each instruction.
int rank(Acceleration acceleration) {
  switch (acceleration) {
    case Acceleration::kHardware:
      return 0;
    case Acceleration::kNone:
      return 1;
    case Acceleration::kEmulated:
      break;
  }
  return 2;
}

std::string rateText(std::uint64_t instructionsPerSecond) {
  if (instructionsPerSecond == 0) {
    return {};
  }
  std::array<char, 48> text;
  std::snprintf(text.data(), text.size(), " (%.1f MIPS)", static_cast<double>(instructionsPerSecond) / 1e6);
  return text.data();
}

std::string whyNot(const BackendInfo& other, const BackendInfo& chosen) {
  if (other.error) {
    return other.name + " cannot be probed (" + other.error->message() + ')';
  }
  if (!other.usable) {
    return other.name + " is not usable" + (other.summary.empty() ? "" : " (" + other.summary + ')');
  }
  if (other.acceleration == chosen.acceleration) {
    return other.name + " has " + (other.preference == chosen.preference ? "no higher" : "a lower") + " preference";
  }
  if (other.acceleration == Acceleration::kEmulated) {
    return other.name + " is present, but emulating" + rateText(other.instructionsPerSecond);
  }
  return other.name + " has no hardware acceleration";
}

}  // namespace

Registry::Choice chooseBackend(const std::vector<BackendInfo>& backends) {
  const BackendInfo* best = nullptr;
  const auto order = [](const BackendInfo& info) {
    return std::make_tuple(rank(info.acceleration), -std::int64_t{info.preference}, std::cref(info.name));
  };
  for (const BackendInfo& info : backends) {
    if (info.usable && !info.error && (best == nullptr || order(info) < order(*best))) {
      best = &info;
    }
  }
  if (best == nullptr) {
    std::string reasons;
    std::string hint;
    for (const BackendInfo& info : backends) {
      reasons += (reasons.empty() ? "" : "; ") + whyNot(info, info);
      if (hint.empty()) {
        hint = info.hint;
      }
    }
    throw Error(ErrorCode::kUnavailable,
                backends.empty() ? "there is no backend: no plugin was found" : "no backend is usable: " + reasons,
                hint.empty() ? "vmmhost backends tells what was looked at" : hint);
  }
  std::string reasons;
  if (best->acceleration == Acceleration::kHardware) {
    reasons = "it has hardware acceleration";
  }
  for (const BackendInfo& info : backends) {
    if (&info != best) {
      reasons += (reasons.empty() ? "" : "; ") + whyNot(info, *best);
    }
  }
  if (reasons.empty()) {
    reasons = "it is the only backend";
  }
  return {*best, best->name + ": chosen because " + reasons};
}

}  // namespace vmmhost::plugin
