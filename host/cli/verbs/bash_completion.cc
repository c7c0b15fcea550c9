#include "host/cli/verbs/bash_completion.h"

#include <algorithm>
#include <variant>

namespace vmmhost::cli {

namespace {

// The shell code that completes a value; $current is the word so far.
std::string completeValue(Completion completion) {
  switch (completion) {
    case Completion::kFiles:
      // Names with spaces stay whole; a word that is quoted so far is left to readline, which knows how.
      return "compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- \"$current\"); "
             "((${#COMPREPLY[@]})) || compopt -o default 2>/dev/null";
    case Completion::kBackends:
      return "COMPREPLY=($(compgen -W \"auto $(vmmhost completion backends 2>/dev/null)\" -- \"$current\"))";
    case Completion::kVms:
      return "COMPREPLY=($(compgen -W \"$(vmmhost completion vms 2>/dev/null)\" -- \"$current\"))";
    case Completion::kLiveVms:
      return "COMPREPLY=($(compgen -W \"$(vmmhost completion live-vms 2>/dev/null)\" -- \"$current\"))";
    case Completion::kShells:
      return "COMPREPLY=($(compgen -W bash -- \"$current\"))";
    case Completion::kNothing:
      break;
  }
  return "COMPREPLY=()";
}

// "-f,--file" with something else between.
std::string namesWith(const Option& option, char between) {
  std::string names = option.names;
  std::replace(names.begin(), names.end(), ',', between);
  return names;
}

void appendVerb(std::string& script, const Verb& verb) {
  const Usage usage = verb.usage();
  std::string flags = "-h --help";
  script += "    " + std::string(verb.name) + ")\n      case $previous in\n";
  for (const Option& option : usage.options) {
    flags += ' ' + namesWith(option, ' ');
    if (!std::holds_alternative<bool*>(option.place)) {
      script += "        " + namesWith(option, '|') + ") " + completeValue(option.value.completion) + "; return ;;\n";
    }
  }
  // What comes behind the first argument is of its kind, or of none.
  const Completion argument = usage.arguments.empty() ? Completion::kNothing : usage.arguments[0].value.completion;
  script += "      esac\n      if [[ $current == -* ]]; then\n        COMPREPLY=($(compgen -W \"" + flags +
            "\" -- \"$current\"))\n      else\n        " + completeValue(argument) + "\n      fi ;;\n";
}

}  // namespace

std::string bashCompletion(std::span<const Verb* const> verbs) {
  std::string names;
  for (const Verb* verb : verbs) {
    names += verb->name + std::string(" ");
  }
  std::string script =
      "# bash completion for vmmhost; made by `vmmhost completion bash`.\n"
      "_vmmhost() {\n"
      "  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}\n"
      "  COMPREPLY=()\n"
      "  if ((COMP_CWORD == 1)); then\n"
      "    COMPREPLY=($(compgen -W \"" +
      names +
      "--help --version\" -- \"$current\"))\n"
      "    return\n"
      "  fi\n"
      "  case ${COMP_WORDS[1]} in\n";
  for (const Verb* verb : verbs) {
    appendVerb(script, *verb);
  }
  script +=
      "  esac\n"
      "}\n"
      "complete -F _vmmhost vmmhost\n";
  return script;
}

}  // namespace vmmhost::cli
