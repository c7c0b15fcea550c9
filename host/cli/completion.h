// Completion of command lines by the shell.
#pragma once

#include <string>
#include <vector>

namespace vmmhost::cli {

// The command's verbs and flags, as its parser knows them.
struct CommandTree {
  struct Flag {
    std::vector<std::string> names;  // "-f", "--file"
    std::string value;               // what it takes ("FILE", "BACKEND", ...); empty: nothing
  };
  struct Verb {
    std::string name;
    std::vector<Flag> flags;
    std::string positional;  // "NAME", "ENDED", ...; empty: none
  };
  std::vector<Verb> verbs;
};

std::string bashCompletion(const CommandTree& tree);

}  // namespace vmmhost::cli
