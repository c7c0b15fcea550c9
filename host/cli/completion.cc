#include "host/cli/completion.h"

#include <unistd.h>

#include "host/base/paths.h"
#include "host/cli/output.h"
#include "host/cli/verbs.h"
#include "host/client/environment.h"
#include "host/config/text.h"
#include "host/plugin/registry.h"
#include "host/runtime/directories.h"

namespace vmmhost::cli {

namespace {

// The shell code that completes a value of this kind; $current is the word so far.
std::string completeValue(const std::string& kind) {
  if (kind == "FILE" || kind == "PATH[,ro]") {
    // Names with spaces stay whole; a word that is quoted so far is left to readline, which knows how.
    return "compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- \"$current\"); "
           "((${#COMPREPLY[@]})) || compopt -o default 2>/dev/null";
  }
  if (kind == "BACKEND") {
    return "COMPREPLY=($(compgen -W \"auto $(vmmhost completion backends 2>/dev/null)\" -- \"$current\"))";
  }
  if (kind == "NAME") {
    return "COMPREPLY=($(compgen -W \"$(vmmhost completion vms 2>/dev/null)\" -- \"$current\"))";
  }
  if (kind == "LIVE") {
    return "COMPREPLY=($(compgen -W \"$(vmmhost completion live-vms 2>/dev/null)\" -- \"$current\"))";
  }
  if (kind == "SHELL") {
    return "COMPREPLY=($(compgen -W bash -- \"$current\"))";
  }
  return "COMPREPLY=()";
}

std::string join(const std::vector<std::string>& words, const char* between) {
  std::string text;
  for (const std::string& word : words) {
    text += (text.empty() ? "" : between) + word;
  }
  return text;
}

void appendVerb(std::string& script, const CommandTree::Verb& verb) {
  std::vector<std::string> flags;
  script += "    " + verb.name + ")\n      case $previous in\n";
  for (const CommandTree::Flag& flag : verb.flags) {
    flags.insert(flags.end(), flag.names.begin(), flag.names.end());
    if (!flag.value.empty()) {
      script += "        " + join(flag.names, "|") + ") " + completeValue(flag.value) + "; return ;;\n";
    }
  }
  script += "      esac\n      if [[ $current == -* ]]; then\n        COMPREPLY=($(compgen -W \"" + join(flags, " ") +
            "\" -- \"$current\"))\n      else\n        " + completeValue(verb.positional) + "\n      fi ;;\n";
}

std::vector<std::string> vmNames(bool onlyLiving) {
  std::vector<std::string> names;
  const auto directories = runtime::Directories::open(runtime::Directories::defaultPaths());
  for (const runtime::Entry& entry : runtime::list(directories)) {
    if (entry.alive || !onlyLiving) {
      names.push_back(entry.name);
    }
  }
  return names;
}

std::vector<std::string> backendNames() {
  return plugin::Registry(client::registryOptions(findInstallation(),
                                                  client::processVariable("VMMHOST_PLUGIN_PATH").value_or(""),
                                                  ::geteuid() == 0))
      .names();
}

}  // namespace

std::string bashCompletion(const CommandTree& tree) {
  std::vector<std::string> verbs;
  for (const CommandTree::Verb& verb : tree.verbs) {
    verbs.push_back(verb.name);
  }
  std::string script =
      "# bash completion for vmmhost; made by `vmmhost completion bash`.\n"
      "_vmmhost() {\n"
      "  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}\n"
      "  COMPREPLY=()\n"
      "  if ((COMP_CWORD == 1)); then\n"
      "    COMPREPLY=($(compgen -W \"" +
      join(verbs, " ") +
      " --help --version\" -- \"$current\"))\n"
      "    return\n"
      "  fi\n"
      "  case ${COMP_WORDS[1]} in\n";
  for (const CommandTree::Verb& verb : tree.verbs) {
    appendVerb(script, verb);
  }
  script +=
      "  esac\n"
      "}\n"
      "complete -F _vmmhost vmmhost\n";
  return script;
}

int completion(const std::string& shell, const CommandTree& tree) {
  if (shell == "bash") {
    print(bashCompletion(tree));
    return 0;
  }
  std::vector<std::string> names;
  if (shell == "vms" || shell == "live-vms") {
    names = vmNames(shell == "live-vms");
  } else if (shell == "backends") {
    names = backendNames();
  } else {
    throw Error(ErrorCode::kInvalidArgument, "there is no completion for " + config::inQuotes(shell),
                "vmmhost completion bash");
  }
  for (const std::string& name : names) {
    printLine(name);
  }
  return 0;
}

}  // namespace vmmhost::cli
