// Options that several verbs have, and the usage of verbs that have no others.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "host/cli/base/verb.h"
#include "host/config/flags.h"

namespace vmmhost::cli {

// The places outlive what is made of them.
Option jsonOption(bool& json);
Option portOption(std::optional<std::string>& port);                       // of a console
Option liveVmArgument(std::string& name);                                  // a VM that runs
Option vmsArgument(std::vector<std::string>& names);                       // one or more, running or ended
void addVmOptions(std::vector<Option>& options, config::RunFlags& flags);  // what describes a VM, at the end

// A verb that does one thing to a running VM.
struct VmOptions {
  std::string name;
  bool json = false;
};
Usage vmUsage(int (*carryOut)(const VmOptions& options));

// A verb about this machine or this build.
Usage machineUsage(int (*carryOut)(bool json), const char* notes = "");

}  // namespace vmmhost::cli
