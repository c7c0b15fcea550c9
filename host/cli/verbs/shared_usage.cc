#include "host/cli/verbs/shared_usage.h"

#include <memory>

namespace vmmhost::cli {

Option jsonOption(bool& json) {
  return {"--json", kFlag, "Print one JSON document on standard output; errors as {\"error\": ...} too", &json};
}

Option portOption(std::optional<std::string>& port) {
  return {"--port", kNumber, "A console by its number in the configuration (0)", &port};
}

Option liveVmArgument(std::string& name) {
  return {"name", kLiveVm, "Name of the VM", &name, Presence::kRequired};
}

Option vmsArgument(std::vector<std::string>& names) {
  return {"names", kVm, "Names of VMs", &names, Presence::kRequired};
}

void addVmOptions(std::vector<Option>& options, config::RunFlags& flags) {
  const std::vector<Option> rows = {
      {"-f,--file", kFile,
       "Configuration as JSON, in the shape of schemas/vm.capnp; - is standard input. Flags replace its values, disks "
       "are added",
       &flags.file},
      {"--name", {"NEW"}, "Name of the VM; one is made up otherwise", &flags.name},
      {"--kernel", kFile, "Kernel to boot", &flags.kernel},
      {"--initrd", kFile, "Initial RAM disk", &flags.initrd},
      {"--cmdline", {"TEXT"}, "Kernel command line", &flags.cmdline},
      {"--cpus", kNumber, "Virtual CPUs (1)", &flags.cpus},
      {"--memory", kSize, "Guest memory, such as 512M or 2G (512M)", &flags.memory},
      {"--disk", {"PATH[,ro]", Completion::kFiles}, "Disk image, raw; may be given several times", &flags.disks},
  };
  options.insert(options.end(), rows.begin(), rows.end());
}

Usage vmUsage(int (*carryOut)(const VmOptions& options)) {
  const auto options = std::make_shared<VmOptions>();
  return {
      .arguments = {liveVmArgument(options->name)},
      .options = {jsonOption(options->json)},
      .carryOut = [options, carryOut]() { return carryOut(*options); },
  };
}

Usage machineUsage(int (*carryOut)(bool json), const char* notes) {
  const auto json = std::make_shared<bool>(false);
  return {
      .options = {jsonOption(*json)},
      .notes = notes,
      .carryOut = [json, carryOut]() { return carryOut(*json); },
  };
}

}  // namespace vmmhost::cli
