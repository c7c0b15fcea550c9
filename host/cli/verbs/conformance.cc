// vmmhost conformance: becomes vmmhost-conformance, which is a program of its own because it loads plugins.
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "host/base/paths.h"
#include "host/cli/verbs/shared_usage.h"
#include "host/cli/verbs/verbs.h"
#include "vmmhost/error.h"

namespace vmmhost::cli {

namespace {

struct ConformanceOptions {
  std::optional<std::string> backend;
  std::optional<std::string> plugin;
  std::vector<std::string> patterns;
  std::optional<std::string> kernel;
  std::optional<std::string> initrd;
  std::optional<std::string> jobs;
  bool list = false;
  bool json = false;
};

// Does not return: the process becomes another program.
int conformance(const ConformanceOptions& options) {
  const std::string program = findInstallation().conformance;
  std::vector<std::string> words = {program};
  const auto add = [&](const char* flag, const std::optional<std::string>& value) {
    if (value) {
      words.insert(words.end(), {flag, *value});
    }
  };
  add("--backend", options.backend);
  add("--plugin", options.plugin);
  for (const std::string& pattern : options.patterns) {
    add("--case", pattern);
  }
  add("--kernel", options.kernel);
  add("--initrd", options.initrd);
  add("--jobs", options.jobs);
  if (options.list) {
    words.emplace_back("--list");
  }
  if (options.json) {
    words.emplace_back("--json");
  }
  std::vector<char*> arguments;
  for (std::string& word : words) {
    arguments.push_back(word.data());
  }
  arguments.push_back(nullptr);
  ::execv(program.c_str(), arguments.data());
  throw Error(ErrorCode::kInternal, systemError("executing " + program, errno).message(),
              "the installation is incomplete or damaged: install vmmhost again");
}

Usage usage() {
  const auto options = std::make_shared<ConformanceOptions>();
  return {
      .options = {{"--backend", kBackend, "An installed backend by name", &options->backend},
                  {"--plugin", kFile, "A plugin's file, vmmhost-backend-NAME.so, installed or not", &options->plugin},
                  {"--case",
                   {"PATTERN"},
                   "Only these cases: an area, or a shell pattern for names; may be given several times",
                   &options->patterns},
                  {"--kernel", kFile, "Stock Linux kernel for the cases of the area linux", &options->kernel},
                  {"--initrd", kFile, "Initial RAM disk for it, as guest/build makes one", &options->initrd},
                  {"--jobs", kNumber, "Cases that are run at the same time (2)", &options->jobs},
                  {"--list", kFlag, "Show the cases and the capabilities that they need; run nothing", &options->list},
                  jsonOption(options->json)},
      .notes =
          "Runs one list of behaviours on a backend. A case that needs a capability which the backend does not "
          "advertise\n"
          "checks that it is refused instead. Exit code: 0 the backend conforms, 1 a case failed, 125 vmmhost's own "
          "error\n"
          "or wrong usage, 126 the backend is unusable here, 127 no such backend, file or case.",
      .carryOut = [options]() { return conformance(*options); },
  };
}

}  // namespace

const Verb kConformanceVerb = {"conformance", "Check that a backend behaves as every backend has to", usage};

}  // namespace vmmhost::cli
