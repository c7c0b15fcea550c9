#include <string>

#include "ipc/jail/seccomp/call_table.h"
#include "vmmhost/error.h"

namespace vmmhost::seccomp {

Policy basePolicy(std::string_view name, const BaseParameters& parameters) {
  struct Entry {
    std::string_view name;
    Policy (*make)(const BaseParameters&);
  };
  static constexpr Entry kPolicies[] = {
      {"worker-static", workerStatic},
      {"worker-dynamic", workerDynamic},
      {"worker-system", workerSystem},
  };
  for (const Entry& entry : kPolicies) {
    if (entry.name == name) {
      return entry.make(parameters);
    }
  }
  throw Error(ErrorCode::kInvalidArgument, "there is no seccomp policy '" + std::string(name.substr(0, 64)) + "'",
              "a launch plan names one of worker-static, worker-dynamic, worker-system");
}

}  // namespace vmmhost::seccomp
