// vmmhost: the command line. CLI11 stays in this file.
#include <fcntl.h>
#include <kj/exception.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <new>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "host/base/build_info.h"
#include "host/cli/exit_codes.h"
#include "host/cli/output.h"
#include "host/cli/verbs.h"
#include "host/client/environment.h"
#include "host/config/text.h"
#include "ipc/rpc/connection.h"
#include "ipc/spawn/limits.h"

namespace vmmhost::cli {
namespace {

constexpr std::size_t kMaxWordsShown = 8;

struct Invocation;

// A verb's options are defined only when it is the one asked for: `run` starts in a fraction of the time.
struct Verb {
  const char* name;
  const char* description;
  void (*define)(CLI::App& app, Invocation& invocation);
};

struct Invocation {
  std::function<int()> action;
  RunOptions run;
  PsOptions ps;
  InspectOptions inspect;
  LogsOptions logs;
  ConsoleOptions console;
  ControlOptions control;
  BalloonOptions balloon;
  ConformanceOptions conformance;
  std::string name;
  std::string port;
  std::vector<std::string> names;
  std::string shell;
  bool force = false;
  bool json = false;
};

CommandTree commandTree();

CLI::Option* takesOne(CLI::Option* option, const char* kind) {
  return option->type_name(kind)->allow_extra_args(false);
}

void addJson(CLI::App& app, bool& json) {
  app.add_flag("--json", json, "Print one JSON document on standard output; errors as {\"error\": ...} too");
}

CLI::Option* addName(CLI::App& app, std::string& name, const char* kind = "LIVE") {
  return app.add_option("name", name, "Name of the VM")->type_name(kind)->required();
}

void addPort(CLI::App& app, std::optional<std::string>& port) {
  takesOne(app.add_option("--port", port, "A console by its number in the configuration (0)"), "N");
}

void addVmFlags(CLI::App& app, config::RunFlags& flags) {
  takesOne(app.add_option("-f,--file", flags.file,
                          "Configuration as JSON, in the shape of schemas/vm.capnp; - is standard input. Flags replace "
                          "its values, disks are added"),
           "FILE");
  takesOne(app.add_option("--name", flags.name, "Name of the VM; one is made up otherwise"), "NEW");
  takesOne(app.add_option("--kernel", flags.kernel, "Kernel to boot"), "FILE");
  takesOne(app.add_option("--initrd", flags.initrd, "Initial RAM disk"), "FILE");
  takesOne(app.add_option("--cmdline", flags.cmdline, "Kernel command line"), "TEXT");
  takesOne(app.add_option("--cpus", flags.cpus, "Virtual CPUs (1)"), "N");
  takesOne(app.add_option("--memory", flags.memory, "Guest memory, such as 512M or 2G (512M)"), "SIZE");
  takesOne(app.add_option("--disk", flags.disks, "Disk image, raw; may be given several times"), "PATH[,ro]");
}

void defineRun(CLI::App& app, Invocation& invocation) {
  RunOptions& run = invocation.run;
  takesOne(app.add_option("--backend", run.backend, "Backend by name, or auto (auto)"), "BACKEND");
  addVmFlags(app, run.flags);
  app.add_flag("-d,--detach", run.detach, "Print the VM's name once it runs, and leave it running");
  app.add_flag("--rm", run.removeOnEnd, "Keep nothing of the VM when it has ended");
  takesOne(app.add_option("--timeout", run.timeoutSeconds, "End the VM after this time (exit code 124)"), "SECONDS");
  app.add_flag("--timings", run.timings, "Print where the time went on standard error");
  app.add_option("--without", run.without, "Start even if this part of the worker's jail cannot be had on this machine")
      ->type_name("PART")
      ->delimiter(',');
  addJson(app, invocation.json);
  app.footer(
      "The console is standard input and output; in a terminal ^] opens a menu (detach, kill, cancel).\n"
      "The end of standard input does not end the VM; the loss of standard output does. With --json the console's\n"
      "output goes to standard error, and the outcome as JSON to standard output.\n"
      "Exit code: 0 the guest powered off, 1 it crashed or panicked or its worker died, 3 it asked for a reset,\n"
      "124 --timeout, 125 vmmhost's own error or wrong usage, 126 the backend is unusable, 127 no such thing,\n"
      "129, 130 or 143 a signal ended it.");
  invocation.action = [&invocation]() {
    invocation.run.json = invocation.json;
    return cli::run(invocation.run);
  };
}

void definePs(CLI::App& app, Invocation& invocation) {
  app.add_flag("-a,--all", invocation.ps.all, "Ended VMs as well");
  addJson(app, invocation.json);
  invocation.action = [&invocation]() {
    invocation.ps.json = invocation.json;
    return ps(invocation.ps);
  };
}

void defineInspect(CLI::App& app, Invocation& invocation) {
  InspectOptions& inspect = invocation.inspect;
  app.add_option("name", inspect.name, "Name of a VM")->type_name("NAME");
  app.add_flag("--config", inspect.config,
               "The configuration: of the VM, or that of the flags, with nothing being started");
  addVmFlags(app, inspect.flags);
  addJson(app, invocation.json);
  app.footer("Prints JSON with or without --json.");
  invocation.action = [&invocation]() { return cli::inspect(invocation.inspect); };
}

void defineLogs(CLI::App& app, Invocation& invocation) {
  addName(app, invocation.logs.name, "NAME");
  app.add_flag("-f,--follow", invocation.logs.follow, "Go on until the VM ends");
  addPort(app, invocation.logs.port);
  app.add_flag("--vmm", invocation.logs.vmm, "The log of supervisor and worker instead of the console's output");
  addJson(app, invocation.json);
  invocation.action = [&invocation]() {
    invocation.logs.json = invocation.json;
    return logs(invocation.logs);
  };
}

void defineConsole(CLI::App& app, Invocation& invocation) {
  addName(app, invocation.console.name);
  addPort(app, invocation.console.port);
  addJson(app, invocation.json);
  app.footer("^] opens a menu: detach, kill, cancel. Ends with the VM.");
  invocation.action = [&invocation]() {
    invocation.console.json = invocation.json;
    return console(invocation.console);
  };
}

void defineVsock(CLI::App& app, Invocation& invocation) {
  addName(app, invocation.name);
  app.add_option("port", invocation.port, "Port that somebody in the guest listens on")->type_name("PORT")->required();
  app.footer(
      "Standard input goes to the guest, what it sends to standard output; the end of standard input is told to it. "
      "Ends\n"
      "when the guest has closed the connection, with exit code 0. Programs may do the same with the socket that\n"
      "`vmmhost inspect` shows: connect, send \"CONNECT PORT\" and a line feed, read a line that begins with OK.");
  invocation.action = [&invocation]() { return vsock(invocation.name, invocation.port); };
}

void defineControl(CLI::App& app, Invocation& invocation, ControlOptions::Verb verb) {
  invocation.control.verb = verb;
  addName(app, invocation.control.name);
  addJson(app, invocation.json);
  invocation.action = [&invocation]() {
    invocation.control.json = invocation.json;
    return control(invocation.control);
  };
}

void defineShutdown(CLI::App& app, Invocation& invocation) {
  defineControl(app, invocation, ControlOptions::Verb::kShutdown);
  takesOne(app.add_option("--timeout", invocation.control.timeoutSeconds,
                          "Wait this long for the guest to power off, then end it by force"),
           "SECONDS");
}

void defineStop(CLI::App& app, Invocation& invocation) {
  defineControl(app, invocation, ControlOptions::Verb::kStop);
}
void definePause(CLI::App& app, Invocation& invocation) {
  defineControl(app, invocation, ControlOptions::Verb::kPause);
}
void defineResume(CLI::App& app, Invocation& invocation) {
  defineControl(app, invocation, ControlOptions::Verb::kResume);
}
void defineReset(CLI::App& app, Invocation& invocation) {
  defineControl(app, invocation, ControlOptions::Verb::kReset);
}

void defineBalloon(CLI::App& app, Invocation& invocation) {
  addName(app, invocation.balloon.name);
  app.add_option("size", invocation.balloon.size, "Memory that the guest is to give up, such as 512M")
      ->type_name("SIZE");
  addJson(app, invocation.json);
  app.footer("Shows what the guest was asked to give up and what it has given up so far.");
  invocation.action = [&invocation]() {
    invocation.balloon.json = invocation.json;
    return balloon(invocation.balloon);
  };
}

void defineWait(CLI::App& app, Invocation& invocation) {
  app.add_option("names", invocation.names, "Names of VMs")->type_name("NAME")->required();
  addJson(app, invocation.json);
  app.footer("Exits as `vmmhost run` would have: with the first code in the order of names that is not 0.");
  invocation.action = [&invocation]() { return wait(invocation.names, invocation.json); };
}

void defineRm(CLI::App& app, Invocation& invocation) {
  app.add_option("names", invocation.names, "Names of VMs")->type_name("NAME")->required();
  app.add_flag("-f,--force", invocation.force, "End it first if it runs");
  addJson(app, invocation.json);
  invocation.action = [&invocation]() { return remove(invocation.names, invocation.force, invocation.json); };
}

void defineBackends(CLI::App& app, Invocation& invocation) {
  addJson(app, invocation.json);
  invocation.action = [&invocation]() { return backends(invocation.json); };
}

void defineDoctor(CLI::App& app, Invocation& invocation) {
  addJson(app, invocation.json);
  app.footer("Exits with 0 when VMs can be started with at least one backend, else with 1.");
  invocation.action = [&invocation]() { return doctor(invocation.json); };
}

void defineConformance(CLI::App& app, Invocation& invocation) {
  ConformanceOptions& conformance = invocation.conformance;
  takesOne(app.add_option("--backend", conformance.backend, "An installed backend by name"), "BACKEND");
  takesOne(app.add_option("--plugin", conformance.plugin, "A plugin's file, vmmhost-backend-NAME.so, installed or not"),
           "FILE");
  takesOne(app.add_option("--case", conformance.patterns,
                          "Only these cases: an area, or a shell pattern for names; may be given several times"),
           "PATTERN");
  takesOne(app.add_option("--kernel", conformance.kernel, "Stock Linux kernel for the cases of the area linux"),
           "FILE");
  takesOne(app.add_option("--initrd", conformance.initrd, "Initial RAM disk for it, as guest/build makes one"), "FILE");
  takesOne(app.add_option("--jobs", conformance.jobs, "Cases that are run at the same time (2)"), "N");
  app.add_flag("--list", conformance.list, "Show the cases and the capabilities that they need; run nothing");
  addJson(app, invocation.json);
  app.footer(
      "Runs one list of behaviours on a backend. A case that needs a capability which the backend does not advertise\n"
      "checks that it is refused instead. Exit code: 0 the backend conforms, 1 a case failed, 125 vmmhost's own error\n"
      "or wrong usage, 126 the backend is unusable here, 127 no such backend, file or case.");
  invocation.action = [&invocation]() {
    invocation.conformance.json = invocation.json;
    return cli::conformance(invocation.conformance);
  };
}

void defineVersion(CLI::App& app, Invocation& invocation) {
  addJson(app, invocation.json);
  invocation.action = [&invocation]() { return version(invocation.json); };
}

void defineCompletion(CLI::App& app, Invocation& invocation) {
  app.add_option("shell", invocation.shell, "bash")->type_name("SHELL")->required();
  app.footer("Use it with: source <(vmmhost completion bash)");
  invocation.action = [&invocation]() { return completion(invocation.shell, commandTree()); };
}

constexpr Verb kVerbs[] = {
    {"run", "Start a VM, attached to its console", defineRun},
    {"ps", "List VMs", definePs},
    {"inspect", "Show all that is known of a VM, or a configuration", defineInspect},
    {"logs", "Show what a VM said", defineLogs},
    {"console", "Attach to a VM's console", defineConsole},
    {"vsock", "Connect to a port of the guest", defineVsock},
    {"shutdown", "Ask the guest to power off", defineShutdown},
    {"stop", "End a VM by force", defineStop},
    {"pause", "Pause a VM", definePause},
    {"resume", "Let a paused VM go on", defineResume},
    {"reset", "Start the guest again from its boot", defineReset},
    {"balloon", "Show or set how much memory the guest gives up", defineBalloon},
    {"wait", "Wait for VMs to end", defineWait},
    {"rm", "Remove what ended VMs left", defineRm},
    {"backends", "List backends: usable or why not, capabilities, speed", defineBackends},
    {"conformance", "Check that a backend behaves as every backend has to", defineConformance},
    {"doctor", "Say what is missing on this machine, and what mends it", defineDoctor},
    {"version", "Print versions", defineVersion},
    {"completion", "Print a shell's completion script", defineCompletion},
};

// What the completion needs to know, from the definitions themselves.
CommandTree commandTree() {
  CommandTree tree;
  for (const Verb& verb : kVerbs) {
    CLI::App app;
    Invocation unused;
    verb.define(app, unused);
    CommandTree::Verb& entry = tree.verbs.emplace_back();
    entry.name = verb.name;
    for (const CLI::Option* option : app.get_options()) {
      if (option->nonpositional()) {
        CommandTree::Flag& flag = entry.flags.emplace_back();
        for (const std::string& name : option->get_snames()) {
          flag.names.push_back("-" + name);
        }
        for (const std::string& name : option->get_lnames()) {
          flag.names.push_back("--" + name);
        }
        flag.value = option->get_expected_max() > 0 ? option->get_type_name() : "";
      } else if (entry.positional.empty()) {  // what comes behind the first is no name
        entry.positional = option->get_type_name();
      }
    }
  }
  return tree;
}

// Usage errors are those of vmmhost itself.
int usageError(const std::string& message, const std::string& verb, bool json) {
  return report(Error(ErrorCode::kInvalidArgument, message,
                      "`vmmhost " + (verb.empty() ? "" : verb + " ") + "--help` shows what there is"),
                json);
}

bool hasJsonFlag(int argc, char** argv) {
  for (int index = 1; index < argc; ++index) {
    if (std::string_view(argv[index]) == "--json") {
      return true;
    }
  }
  return false;
}

// Descriptors 0, 1 and 2 are there, whatever started us: what is opened later must not become one of them.
void openStandardDescriptors() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (::fcntl(fd, F_GETFD) < 0 && ::open("/dev/null", O_RDWR) != fd) {
      ::_exit(kExitFailed);
    }
  }
  ::signal(SIGCHLD, SIG_DFL);  // where it is ignored a child's end cannot be asked for
}

// The words behind the command's name, the last one first, as CLI11 wants them. "--flag=" is a flag with an empty
// value, where CLI11 would take the next word for it.
std::vector<std::string> reversedWords(int argc, char** argv) {
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
    text += ' ' + (index == kMaxWordsShown ? "..." : config::printable(words[index], 64));
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
  return config::printable(what);
}

int dispatch(int argc, char** argv) {
  const std::uint64_t startNs = client::monotonicNs();
  CLI::App app("Runs virtual machines in jailed workers, on whatever this machine offers.", "vmmhost");
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string(kBuild));
  const std::string asked = argc > 1 ? argv[1] : "";
  Invocation invocation;
  invocation.run.commandStartNs = startNs;
  bool known = false;
  for (const Verb& verb : kVerbs) {
    CLI::App* subcommand = app.add_subcommand(verb.name, verb.description);
    if (asked == verb.name) {
      known = true;
      verb.define(*subcommand, invocation);
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
      return usageError("there is no verb " + config::inQuotes(asked), "", json);
    }
    return usageError(usageText(error, app), known ? asked : "", json);
  }
  try {
    return invocation.action ? invocation.action() : usageError("the verb has to come first", "", json);
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
}  // namespace vmmhost::cli

int main(int argc, char** argv) {
  vmmhost::cli::openStandardDescriptors();
  // A limit of file sizes (ulimit -f) is an error of a write, not the end of the command.
  ::signal(SIGXFSZ, SIG_IGN);
  vmmhost::spawn::raiseOwnLimits();
  return vmmhost::cli::dispatch(argc, argv);
}
