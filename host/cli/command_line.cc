// CLI11 stays in this file.
#include "host/cli/command_line.h"

#include <kj/exception.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstddef>
#include <functional>
#include <new>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "host/base/build_info.h"
#include "host/base/text.h"
#include "host/cli/base/exit_codes.h"
#include "host/cli/base/output.h"
#include "ipc/jail/spawn/limits.h"
#include "ipc/rpc/connection.h"

namespace vmmhost::cli {
namespace {

constexpr std::size_t kMaxWordsShown = 8;

void addArgument(CLI::App& app, const Option& row) {
  std::visit(
      [&](auto* place) {
        app.add_option(row.names, *place, row.help)
            ->type_name(row.value.name)
            ->required(row.presence == Presence::kRequired);
      },
      row.place);
}

void addOption(CLI::App& app, const Option& row) {
  std::visit(
      [&](auto* place) {
        if constexpr (std::is_same_v<decltype(place), bool*>) {
          app.add_flag(row.names, *place, row.help);
        } else {
          CLI::Option* option = app.add_option(row.names, *place, row.help)
                                    ->type_name(row.value.name)
                                    ->required(row.presence == Presence::kRequired);
          if (row.list == List::kWords) {
            option->delimiter(',');
          } else {
            option->allow_extra_args(false);
          }
        }
      },
      row.place);
}

void define(CLI::App& app, const Usage& usage) {
  for (const Option& row : usage.arguments) {
    addArgument(app, row);
  }
  for (const Option& row : usage.options) {
    addOption(app, row);
  }
  app.footer(usage.notes);
}

// Usage errors are those of vmmhost itself.
int usageError(const std::string& message, const std::string& verb, bool json) {
  return report(Error(ErrorCode::kInvalidArgument, message,
                      "`vmmhost " + (verb.empty() ? "" : verb + " ") + "--help` shows what there is"),
                json);
}

bool hasJsonFlag(int argc, const char* const* argv) {
  for (int index = 1; index < argc; ++index) {
    if (std::string_view(argv[index]) == "--json") {
      return true;
    }
  }
  return false;
}

// The words behind the command's name, the last one first, as CLI11 wants them. "--flag=" is a flag with an empty
// value, where CLI11 would take the next word for it.
std::vector<std::string> reversedWords(int argc, const char* const* argv) {
  std::vector<std::string> words;
  bool flags = true;
  for (int index = 1; index < argc; ++index) {
    const std::string_view word = argv[index];
    flags = flags && word != "--";
    if (flags && word.size() > 3 && word.substr(0, 2) == "--" && word.find('=') == word.size() - 1) {
      words.emplace_back(word.substr(0, word.size() - 1));
      words.emplace_back();
    } else {
      words.emplace_back(word);
    }
  }
  std::reverse(words.begin(), words.end());
  return words;
}

std::string unexpectedWords(const CLI::App& app) {
  std::vector<std::string> words = app.remaining();
  for (const CLI::App* subcommand : app.get_subcommands()) {
    const std::vector<std::string> more = subcommand->remaining();
    words.insert(words.end(), more.begin(), more.end());
  }
  std::string text;
  for (std::size_t index = 0; index < words.size() && index <= kMaxWordsShown; ++index) {
    text += ' ' + (index == kMaxWordsShown ? "..." : printable(words[index], 64));
  }
  return text;
}

// What is wrong with the command line, in this program's words.
std::string usageText(const CLI::ParseError& error, const CLI::App& app) {
  const std::string what = error.what();
  const std::string name = what.substr(0, what.find_first_of(": "));
  if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr) {
    return "not understood:" + unexpectedWords(app);
  }
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr) {
    return name + (what.find("At Most") == std::string::npos ? ": its value is missing" : ": can be given only once");
  }
  if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr) {
    return app.get_subcommands().empty() ? "a verb is missing" : "an argument is missing: " + name;
  }
  return printable(what);
}

int carryOut(const std::function<int()>& action, bool json) {
  try {
    return action ? action() : usageError("the verb has to come first", "", json);
  } catch (const Error& error) {
    return report(error, json);
  } catch (const kj::Exception& exception) {
    const Error error = rpc::fromKj(exception);
    return report(exception.getType() == kj::Exception::Type::OVERLOADED
                      ? error
                      : Error(ErrorCode::kInternal, "a fault of vmmhost: " + error.message()),
                  json);
  } catch (const std::bad_alloc&) {
    return report(spawn::outOfMemory(), json);
  } catch (const std::exception& error) {
    return report(Error(ErrorCode::kInternal, std::string("a fault of vmmhost: ") + error.what()), json);
  }
}

}  // namespace

int runCommandLine(std::span<const Verb* const> verbs, int argc, const char* const* argv) {
  const std::string asked = argc > 1 ? argv[1] : "";
  const auto verb =
      std::find_if(verbs.begin(), verbs.end(), [&](const Verb* candidate) { return asked == candidate->name; });
  const bool known = verb != verbs.end();
  const Usage usage = known ? (*verb)->usage() : Usage();
  CLI::App app("Runs virtual machines in jailed workers, on whatever this machine offers.", "vmmhost");
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string(kBuild));
  for (const Verb* each : verbs) {
    CLI::App* subcommand = app.add_subcommand(each->name, each->help);
    if (asked == each->name) {
      define(*subcommand, usage);
    }
  }
  const bool json = hasJsonFlag(argc, argv);
  try {
    app.parse(reversedWords(argc, argv));
  } catch (const CLI::Success& help) {
    std::ostringstream text;
    app.exit(help, text, text);
    try {
      print(text.str());
    } catch (const Error& error) {
      return report(error, json);
    }
    return kExitOk;
  } catch (const CLI::ParseError& error) {
    if (!known && !asked.empty() && asked[0] != '-') {
      return usageError("there is no verb " + inQuotes(asked), "", json);
    }
    return usageError(usageText(error, app), known ? asked : "", json);
  }
  return carryOut(usage.carryOut, json);
}

}  // namespace vmmhost::cli
