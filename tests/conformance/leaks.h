// What a case leaves behind: nothing.
#pragma once

#include <sys/types.h>

#include <set>
#include <string>
#include <vector>

namespace vmmhost::conformance {

// This process becomes the one that its descendants' orphans fall to, so that none gets out of sight.
void adoptOrphans();

// Living processes that descend from `ancestor` (not itself): "PID NAME".
std::vector<pid_t> descendants(pid_t ancestor);
std::string processName(pid_t pid);

// Made before anything of a case runs.
class LeakCheck {
 public:
  // `folder` has the runtime entries in run/.
  explicit LeakCheck(std::string folder);

  // What is left and should not be, a line each; empty: nothing. Waits a moment for what is about to go. What was left
  // of processes is ended. `hostPids` name control groups.
  std::vector<std::string> look(const std::vector<pid_t>& hostPids);

 private:
  std::string folder_;
  std::set<std::string> descriptors_;
  std::size_t threads_;
};

}  // namespace vmmhost::conformance
