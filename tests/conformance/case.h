// One behaviour that every backend has to show, as data and a function.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace vmmhost::conformance {

class Context;

// Not a capability: a kernel and an initrd were given, and the machine is fast enough to boot them.
inline constexpr std::string_view kNeedsLinux = "linux-kit";

struct Case {
  std::string name;                   // "AREA.what-it-states", unique
  std::vector<std::string> needs;     // names of host/plugin/abilities.h, or kNeedsLinux
  std::function<void(Context&)> run;  // throws Failure, or Error for what the product refused unexpectedly
  std::string text;                   // what its name leaves open, for people
};

inline std::string areaOf(const std::string& name) {
  return name.substr(0, name.find('.'));
}

using Cases = std::vector<Case>;

// All cases, in the order in which they are run and shown.
Cases allCases();

// One function an area.
void addLifecycleCases(Cases& cases);
void addEventCases(Cases& cases);
void addErrorCases(Cases& cases);
void addDeadlineCases(Cases& cases);
void addCancelCases(Cases& cases);
void addConsoleCases(Cases& cases);
void addPauseCases(Cases& cases);
void addExitCases(Cases& cases);
void addConfigCases(Cases& cases);
void addFieldCases(Cases& cases);
void addInfoCases(Cases& cases);
void addSeveralCases(Cases& cases);
void addVsockCases(Cases& cases);
void addDeviceCases(Cases& cases);
void addClientCases(Cases& cases);
void addLinuxCases(Cases& cases);

}  // namespace vmmhost::conformance
