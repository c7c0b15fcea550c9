// The checks of `vmmhost doctor`.
#pragma once

#include <kj/async-io.h>
#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

#include "host/base/paths.h"
#include "host/config/json_writer.h"
#include "host/plugin/registry.h"
#include "host/runtime/directories.h"

namespace vmmhost::cli {

struct Check {
  enum class Status {
    kOk,
    kWarning,  // something is missing that VMs can be started without
    kProblem,  // no VM can be started, or not on this backend
  };
  std::string name;
  Status status = Status::kOk;
  std::string detail;
  std::string fix;  // the command or step that mends it
};

// Looks at a machine whose files are below `root` (empty: this one's) as user `uid`. Checks of one thing each:
Check checkKvm(const std::string& root);
// `refusal`: errno of an attempt to make one (spawn::tryUserNamespace), 0 if it was made.
Check checkUserNamespaces(const std::string& root, uid_t uid, int refusal, bool isInChroot);
Check checkSeccomp(const std::string& root);
Check checkLandlock();
Check checkCgroups(const std::string& root);
Check checkQemu(const std::string& path);  // PATH
Check checkLimits();
// The whole, where those above are its parts: a guest that only powers off, in a jail, as the caller's own VM. Its
// state does not stay.
Check checkGuest(const InstallPaths& installation, const plugin::BackendInfo& backend);

// A VM whose supervisor is not of this build, as after an update of the package, or does not answer.
struct VmBuild {
  enum class Status { kOlder, kOther, kNotAnswering };
  std::string name;
  Status status = Status::kNotAnswering;
  std::string build;  // printable; empty: not told
};

// By name. All are asked side by side, and each answers within `limit` or is one that does not. Throws Error.
std::vector<VmBuild> vmsOfOtherBuilds(kj::AsyncIoContext& io, const runtime::Directories& directories,
                                      std::chrono::milliseconds limit);
// A line each, with what to do about it.
std::string textOf(const std::vector<VmBuild>& vms);
// As an array of objects.
void writeVms(config::JsonWriter& json, const std::vector<VmBuild>& vms);

}  // namespace vmmhost::cli
