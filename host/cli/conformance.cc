// vmmhost conformance: becomes vmmhost-conformance, which is a program of its own because it loads plugins.
#include <unistd.h>

#include <cerrno>

#include "host/base/paths.h"
#include "host/cli/verbs.h"
#include "vmmhost/error.h"

namespace vmmhost::cli {

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

}  // namespace vmmhost::cli
