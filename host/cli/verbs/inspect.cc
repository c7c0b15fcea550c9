// vmmhost inspect: all that is known of a VM, or a configuration.
#include <capnp/message.h>

#include <memory>

#include "host/cli/base/output.h"
#include "host/cli/base/vm_access.h"
#include "host/cli/verbs/shared_usage.h"
#include "host/cli/verbs/verbs.h"
#include "host/config/flags.h"
#include "host/config/json.h"
#include "host/config/vm_config.h"

namespace vmmhost::cli {

namespace {

struct InspectOptions {
  std::string name;  // empty: the flags describe what is to be shown
  bool config = false;
  config::RunFlags flags;
  bool json = false;  // of errors
};

// A supervisor that does not know of supervisorBuild has told its build in its hello.
void printInfo(schema::VmInfo::Reader info, const client::ControlClient& client) {
  capnp::MallocMessageBuilder message;
  message.setRoot(info);
  auto shown = message.getRoot<schema::VmInfo>();
  if (!info.hasSupervisorBuild()) {
    shown.setSupervisorBuild(client.supervisorBuild().value_or(""));
  }
  printLine(config::writeJson(shown.asReader(), {.pretty = true, .withDefaults = true}));
}

int printConfig(schema::VmConfig::Reader config) {
  printLine(config::writeJson(config, {.pretty = true, .withDefaults = false}));
  return 0;
}

int inspect(const InspectOptions& options) {
  if (options.name.empty()) {
    if (!options.config) {
      throw Error(ErrorCode::kInvalidArgument, "inspect needs the name of a VM, or --config with the flags of run",
                  "vmmhost inspect NAME, or vmmhost inspect --config -f vm.json");
    }
    capnp::MallocMessageBuilder message;
    auto vm = message.initRoot<schema::VmConfig>();
    config::buildVmConfig(options.flags, vm);
    config::validateVmConfig(vm.asReader());
    return printConfig(vm.asReader());
  }
  config::validateVmName(options.name);
  const auto directories = openDirectories();
  const runtime::Entry entry = runtime::find(directories, runtime::vmName(options.name));
  if (!entry.alive) {
    const EndedVm ended(entry);
    if (options.config) {
      return printConfig(ended.info().getConfig());
    }
    printLine(config::writeJson(ended.info(), {.pretty = true, .withDefaults = true}));
    return 0;
  }
  auto io = kj::setupAsyncIo();
  const auto client = connectTo(io, directories, options.name);
  const auto response = client::await(io, client->info());
  if (options.config) {
    return printConfig(response.getInfo().getConfig());
  }
  printInfo(response.getInfo(), *client);
  return 0;
}

Usage usage() {
  const auto options = std::make_shared<InspectOptions>();
  Usage usage = {
      .arguments = {{"name", kVm, "Name of a VM", &options->name}},
      .options = {{"--config", kFlag, "The configuration: of the VM, or that of the flags, with nothing being started",
                   &options->config}},
      .notes = "Prints JSON with or without --json.",
      .carryOut = [options]() { return inspect(*options); },
  };
  addVmOptions(usage.options, options->flags);
  usage.options.push_back(jsonOption(options->json));
  return usage;
}

}  // namespace

const Verb kInspectVerb = {"inspect", "Show all that is known of a VM, or a configuration", usage};

}  // namespace vmmhost::cli
