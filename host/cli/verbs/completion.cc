// vmmhost completion: a shell's completion script, and the names that it asks for.
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "host/base/environment.h"
#include "host/base/paths.h"
#include "host/base/text.h"
#include "host/cli/base/output.h"
#include "host/cli/verbs/bash_completion.h"
#include "host/cli/verbs/verbs.h"
#include "host/plugin/places.h"
#include "host/plugin/registry.h"
#include "host/runtime/directories.h"

namespace vmmhost::cli {

namespace {

std::vector<std::string> vmNames(bool onlyLiving) {
  std::vector<std::string> names;
  const auto directories = runtime::Directories::open(runtime::Directories::defaultPaths());
  for (const runtime::Entry& entry : runtime::list(directories, runtime::Kind::kVm)) {
    if (entry.alive || !onlyLiving) {
      names.push_back(entry.name.text);
    }
  }
  return names;
}

std::vector<std::string> backendNames() {
  return plugin::Registry(plugin::registryOptions(findInstallation(),
                                                  processVariable("VMMHOST_PLUGIN_PATH").value_or(""),
                                                  ::geteuid() == 0))
      .names();
}

int completion(const std::string& shell) {
  if (shell == "bash") {
    print(bashCompletion(allVerbs()));
    return 0;
  }
  std::vector<std::string> names;
  if (shell == "vms" || shell == "live-vms") {
    names = vmNames(shell == "live-vms");
  } else if (shell == "backends") {
    names = backendNames();
  } else {
    throw Error(ErrorCode::kInvalidArgument, "there is no completion for " + inQuotes(shell),
                "vmmhost completion bash");
  }
  for (const std::string& name : names) {
    printLine(name);
  }
  return 0;
}

Usage usage() {
  const auto shell = std::make_shared<std::string>();
  return {
      .arguments = {{"shell", {"SHELL", Completion::kShells}, "bash", shell.get(), Presence::kRequired}},
      .notes = "Use it with: source <(vmmhost completion bash)",
      .carryOut = [shell]() { return completion(*shell); },
  };
}

}  // namespace

const Verb kCompletionVerb = {"completion", "Print a shell's completion script", usage};

}  // namespace vmmhost::cli
