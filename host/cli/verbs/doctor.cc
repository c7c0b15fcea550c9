// vmmhost doctor: what is missing on this machine, and what mends it.
#include "host/cli/verbs/doctor.h"

#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "host/base/environment.h"
#include "host/base/paths.h"
#include "host/base/text.h"
#include "host/cli/base/exit_codes.h"
#include "host/cli/base/output.h"
#include "host/cli/base/vm_access.h"
#include "host/cli/verbs/shared_usage.h"
#include "host/cli/verbs/verbs.h"
#include "host/client/control_client.h"
#include "host/plugin/places.h"
#include "host/plugin/registry.h"
#include "host/runtime/directories.h"
#include "ipc/jail/spawn/user_namespace.h"

namespace vmmhost::cli {

namespace {

Check checkDirectories() {
  try {
    const auto directories = runtime::Directories::open(runtime::Directories::defaultPaths());
    return {"directories", Check::Status::kOk, directories.paths().runtime + ", " + directories.paths().state, {}};
  } catch (const Error& error) {
    return {"directories", Check::Status::kProblem, error.message(), error.hint()};
  }
}

std::vector<VmBuild> oldVms() {
  try {
    auto io = kj::setupAsyncIo();
    return vmsOfOtherBuilds(io, openDirectories(), client::kCallTimeout);
  } catch (const Error&) {
    return {};  // the check of the folders says why
  }
}

struct BackendChecks {
  std::vector<Check> checks;
  std::vector<std::string> running;  // backends on which a guest has run
};

// The installation, each backend, whether there is a usable one at all, and whether a guest runs on it.
BackendChecks checkBackends() {
  BackendChecks found;
  std::vector<Check>& checks = found.checks;
  try {
    const InstallPaths installation = findInstallation();
    checks.push_back({"installation", Check::Status::kOk, installation.supervisor, {}});
    plugin::Registry registry(
        plugin::registryOptions(installation, processVariable("VMMHOST_PLUGIN_PATH").value_or(""), ::geteuid() == 0));
    bool usable = false;
    const std::vector<plugin::BackendInfo> backends = registry.probe(false);
    for (const plugin::BackendInfo& info : backends) {
      usable = usable || info.usable;
      checks.push_back({"backend " + info.name, info.usable ? Check::Status::kOk : Check::Status::kWarning,
                        info.error ? info.error->message() : info.summary,
                        info.error    ? info.error->hint()
                        : info.usable ? std::string()
                                      : info.hint});
    }
    if (!usable) {
      checks.push_back({"backends", Check::Status::kProblem, "no backend is usable",
                        "mend one of those above, or add one: VMMHOST_PLUGIN_PATH names folders with backends"});
    }
    for (const plugin::BackendInfo& info : backends) {
      if (info.usable) {
        checks.push_back(checkGuest(installation, info));
        if (checks.back().status == Check::Status::kOk) {
          found.running.push_back(info.name);
        }
      }
    }
  } catch (const Error& error) {
    checks.push_back({"installation", Check::Status::kProblem, error.message(), error.hint()});
  }
  return found;
}

std::string verdict(bool ready, const std::vector<std::string>& running) {
  if (ready) {
    return "VMs can be started.\n";
  }
  if (running.empty()) {
    return "No VM can be started until the problems above are mended.\n";
  }
  std::string text = "VMs can be started with";
  for (const std::string& name : running) {
    text += (&name == &running.front() ? " --backend " : " or ") + name;
  }
  return text + "; the problems above are in the way of others.\n";
}

const char* statusName(Check::Status status) {
  switch (status) {
    case Check::Status::kOk:
      return "ok";
    case Check::Status::kWarning:
      return "warning";
    default:
      return "problem";
  }
}

std::string textOf(const std::vector<Check>& checks) {
  std::string text;
  for (const Check& check : checks) {
    std::string line = statusName(check.status);
    line.resize(9, ' ');
    text += line + printable(check.name, 64) + ": " + printable(check.detail, 512) + '\n';
    if (!check.fix.empty()) {
      text += "         mend it: " + printable(check.fix, 512) + '\n';
    }
  }
  return text;
}

std::string jsonOf(const std::vector<Check>& checks, const std::vector<VmBuild>& vms, bool ready) {
  config::JsonWriter json;
  json.beginObject().member("ready", ready).key("checks").beginArray();
  for (const Check& check : checks) {
    json.beginObject()
        .member("name", check.name)
        .member("status", statusName(check.status))
        .member("detail", check.detail)
        .member("fix", check.fix)
        .endObject();
  }
  writeVms(json.endArray().key("vms"), vms);
  return json.endObject().str();
}

int doctor(bool json) {
  const int refusal = spawn::tryUserNamespace();
  std::vector<Check> checks = {
      checkKvm({}),       checkUserNamespaces({}, ::geteuid(), refusal, refusal != 0 && spawn::isInChroot()),
      checkSeccomp({}),   checkLandlock(),
      checkCgroups({}),   checkLimits(),
      checkDirectories(), checkQemu(processVariable("PATH").value_or(""))};
  const std::vector<VmBuild> vms = oldVms();  // before those that the checks make
  BackendChecks backends = checkBackends();
  std::move(backends.checks.begin(), backends.checks.end(), std::back_inserter(checks));
  const bool ready = std::none_of(checks.begin(), checks.end(),
                                  [](const Check& check) { return check.status == Check::Status::kProblem; });
  if (json) {
    printLine(jsonOf(checks, vms, ready));
  } else {
    print(textOf(checks));
    print(textOf(vms));
    print(verdict(ready, backends.running));
  }
  return ready ? kExitOk : kExitCrashed;
}

Usage usage() {
  return machineUsage(doctor, "Exits with 0 when VMs can be started with at least one backend, else with 1.");
}

}  // namespace

const Verb kDoctorVerb = {"doctor", "Say what is missing on this machine, and what mends it", usage};

}  // namespace vmmhost::cli
