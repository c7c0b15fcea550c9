// A verb of the command as a table: what it is called, what it takes, what is said of that, and what carries it out.
// host/cli/command_line.cc makes the parser of it, host/cli/verbs/bash_completion.cc the completion.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace vmmhost::cli {

// What a shell offers for a value.
enum class Completion { kNothing, kFiles, kBackends, kVms, kLiveVms, kShells };

// What an option takes. What it means is for the handler to check.
struct Value {
  const char* name = "";  // in help; empty: nothing, see kFlag
  Completion completion = Completion::kNothing;
};
inline constexpr Value kFlag{};
inline constexpr Value kFile{"FILE", Completion::kFiles};
inline constexpr Value kBackend{"BACKEND", Completion::kBackends};
inline constexpr Value kVm{"NAME", Completion::kVms};
inline constexpr Value kLiveVm{"LIVE", Completion::kLiveVms};
inline constexpr Value kNumber{"N"};
inline constexpr Value kSeconds{"SECONDS"};
inline constexpr Value kSize{"SIZE"};

// Where it goes: a flag sets a bool, a text is as it was typed and can be given once, a list takes any number.
using Place = std::variant<bool*, std::string*, std::optional<std::string>*, std::vector<std::string>*>;

enum class Presence { kOptional, kRequired };

// How an option is given whose place is a list. An argument takes all words that are left.
enum class List {
  kRepeated,  // once for each value
  kWords,     // with several words behind it, or commas between them
};

// An option, or an argument, which is known by its place on the command line.
struct Option {
  const char* names;  // "--port"; "-f,--file", the short one first; of an argument "name"
  Value value;
  const char* help;
  Place place;
  Presence presence = Presence::kOptional;
  List list = List::kRepeated;
};

// What a verb takes and does. The places are those of one command line, and live as long as `carryOut`.
struct Usage {
  std::vector<Option> arguments;  // in the order in which they are given
  std::vector<Option> options;    // in the order in which help shows them
  const char* notes = "";         // below them in help: behaviour, exit codes
  // Called once everything is in its place. Returns the exit code of the process, and throws Error for what goes wrong.
  std::function<int()> carryOut;
};

// Its usage is made only when it is the one asked for: `run` starts in a fraction of the time.
struct Verb {
  const char* name;
  const char* help;  // one line
  Usage (*usage)();
};

}  // namespace vmmhost::cli
