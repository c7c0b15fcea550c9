// What a case leaves behind: nothing.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <set>
#include <string>
#include <vector>

namespace vmmhost::conformance {

// This process becomes the one that its descendants' orphans fall to, so that none gets out of sight.
void adoptOrphans();

// Living processes that descend from `ancestor`, without itself.
std::vector<pid_t> descendants(pid_t ancestor);
std::string processName(pid_t pid);
// Of VMs that these processes hosted and cannot clear away any more; tries for a moment.
void removeControlGroups(const std::vector<pid_t>& hostPids);

// Made before anything of a case runs.
class LeakCheck {
 public:
  // `folder` has the runtime entries in run/. `grace` is for what is on its way out already: a supervisor that has
  // answered, a control group whose process is just gone.
  explicit LeakCheck(std::string folder, std::chrono::milliseconds grace = std::chrono::seconds(10));

  // What is left and should not be, one item each; empty: nothing. Processes that are left are ended. `hostPids` name
  // control groups.
  std::vector<std::string> look(const std::vector<pid_t>& hostPids);

 private:
  bool within(const std::function<bool()>& gone) const;  // true once it is; false after the grace

  std::string folder_;
  std::chrono::milliseconds grace_;
  std::set<std::string> descriptors_;
  std::set<std::string> controlGroups_;  // all there were: numbers of processes come again
  std::size_t threads_;
};

}  // namespace vmmhost::conformance
