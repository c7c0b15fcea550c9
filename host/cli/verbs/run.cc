// vmmhost run: starts a VM, and is the client of its supervisor that a person or a script sits in front of.
#include <capnp/message.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "host/base/clock.h"
#include "host/base/environment.h"
#include "host/base/paths.h"
#include "host/base/text.h"
#include "host/cli/base/exit_codes.h"
#include "host/cli/base/output.h"
#include "host/cli/base/vm_access.h"
#include "host/cli/terminal/attachment.h"
#include "host/cli/verbs/own_files.h"
#include "host/cli/verbs/run_report.h"
#include "host/cli/verbs/shared_usage.h"
#include "host/cli/verbs/verbs.h"
#include "host/client/control_client.h"
#include "host/client/launch.h"
#include "host/config/flags.h"
#include "host/config/vm_config.h"
#include "ipc/jail/spawn/limits.h"

namespace vmmhost::cli {

namespace {

using client::ControlClient;

struct RunOptions {
  config::RunFlags flags;
  std::string backend = "auto";
  std::optional<std::string> timeoutSeconds;
  std::vector<std::string> without;
  bool detach = false;
  bool removeOnEnd = false;
  bool json = false;
  bool timings = false;
  bool explainJail = false;
  std::uint64_t commandStartNs = 0;  // CLOCK_MONOTONIC
};

constexpr std::uint32_t kWholeReplay = 0xffffffff;  // everything that is still there
constexpr int kReapLimitMs = 2000;

std::string currentDirectory() {
  const std::unique_ptr<char, decltype(&::free)> path(::get_current_dir_name(), &::free);
  if (!path) {
    throw systemError("asking for the current folder", errno);
  }
  return path.get();
}

// True if standard input is a file of the VM.
bool fillRequest(const RunOptions& options, schema::LaunchRequest::Builder request) {
  auto vm = request.initConfig();
  config::buildVmConfig(options.flags, vm);
  config::validateVmConfig(vm.asReader());
  const bool isInputFile = nameOwnFiles(vm);
  if (options.backend.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "--backend: a name is missing", "leave it out for auto");
  }
  request.setBackend(options.backend);
  request.setWorkingDirectory(currentDirectory());
  if (options.timeoutSeconds) {
    request.setTimeoutMs(parseSeconds("--timeout", *options.timeoutSeconds));
  }
  request.setRemoveOnEnd(options.removeOnEnd);
  request.setDetached(options.detach);
  auto without = request.initWithout(static_cast<unsigned>(options.without.size()));
  for (unsigned index = 0; index < without.size(); ++index) {
    without.set(index, options.without[index]);
  }
  request.setExplainJail(options.explainJail);
  request.setClientStartNs(options.commandStartNs);
  const bool mustMeasure = processVariable("VMMHOST_MEASURE_MEMORY").has_value();
  request.setMeasureMemory(options.json || options.timings || mustMeasure);
  request.setAwaitMeasurement(mustMeasure);
  const auto paths = runtime::Directories::defaultPaths();
  request.setRuntimeDirectory(paths.runtime);
  request.setStateDirectory(paths.state);
  request.setPluginPath(processVariable("VMMHOST_PLUGIN_PATH").value_or(""));
  return isInputFile;
}

// One `vmmhost run` from the launch of the supervisor on.
class Run {
 public:
  explicit Run(const RunOptions& options) : options_(options), io_(kj::setupAsyncIo()) {}

  int carryOut() {
    launch();
    try {
      return options_.detach ? detached() : foreground();
    } catch (const Error& error) {
      throw explained(error);
    }
  }

 private:
  void launch() {
    if (const auto error = spawn::tooLowForTheHost()) {
      throw *error;
    }
    capnp::MallocMessageBuilder message;
    auto request = message.initRoot<schema::LaunchRequest>();
    readsInput_ = !fillRequest(options_, request);
    const std::string name(view(request.asReader().getConfig().getName()));
    supervisor_ = client::launchSupervisor(findInstallation().supervisor, request.asReader());
    client_ = std::make_unique<ControlClient>(io_, std::move(supervisor_.control), name);
  }

  kj::Promise<void> started() {
    // Asked right behind the hello, whose answer counts first.
    auto answer = client_->started();
    return client_->hello()
        .then([this, answer = kj::mv(answer)]() mutable {
          greeted_ = true;
          return kj::mv(answer);
        })
        .then([this](ControlClient::StartedResponse&& response) {
          const auto info = response.getInfo();
          client_->setVmName(printable(view(info.getName()), config::kMaxNameBytes));
          if (info.getChoice().size() > 0) {
            note(view(info.getChoice()));
          }
          report_.take(info);
        });
  }

  int detached() {
    Attachment attachment(io_, *client_, {});
    const ForegroundEvent event = attachment.await(started());
    if (event.kind == ForegroundEvent::Kind::kSignal) {
      attachment.stop(schema::EndKind::SIGNALLED, signalName(event.signal), event.signal);
      return kExitSignalBase + event.signal;
    }
    if (options_.timings) {
      report_.printTimings(options_.commandStartNs);
    }
    try {
      print(options_.json ? report_.detachedJson() + '\n' : client_->vmName() + '\n');
    } catch (const Error&) {
      // Nobody would know of it.
      attachment.stop(schema::EndKind::CLIENT_GONE, "its name could not be printed");
      throw;
    }
    return kExitOk;
  }

  int foreground() {
    // With --json standard output belongs to the one document at the end.
    Attachment attachment(io_, *client_,
                          {.outputFd = options_.json ? STDERR_FILENO : STDOUT_FILENO,
                           .replayBytes = kWholeReplay,
                           .readsInput = readsInput_});
    const ForegroundEvent event = attachment.follow(started());
    int code = kExitOk;
    switch (event.kind) {
      case ForegroundEvent::Kind::kDetach:
        attachment.release();
        client::await(io_, client_->detach());
        note("detached from " + client_->vmName() + "; `vmmhost console " + client_->vmName() + "` attaches again");
        if (options_.json) {
          print(report_.detachedJson() + '\n');
        }
        return kExitOk;
      case ForegroundEvent::Kind::kEnded:
        break;
      case ForegroundEvent::Kind::kKill:
        attachment.stop(schema::EndKind::STOPPED, "killed from its console");
        break;
      case ForegroundEvent::Kind::kOutputGone:
        attachment.stop(schema::EndKind::CLIENT_GONE, attachment.outputFailure());
        break;
      case ForegroundEvent::Kind::kSignal:
        attachment.release();
        attachment.stop(schema::EndKind::SIGNALLED, signalName(event.signal), event.signal);
        break;
    }
    attachment.release();
    const auto outcome = attachment.outcome();
    code = event.kind == ForegroundEvent::Kind::kSignal ? kExitSignalBase + event.signal : outcome.getExitCode();
    if (code == kExitOk && !attachment.outputFailure().empty()) {
      note(attachment.outputFailure());  // the VM had ended well by then
      code = kExitFailed;
    }
    if (options_.json) {
      latestInfo();
    }
    report_.take(outcome);
    finish(outcome, code);
    return code;
  }

  // What is known of the worker at its end, if the supervisor still answers: it owes us nothing any more.
  void latestInfo() {
    try {
      const auto response = client::await(io_, client_->info(std::chrono::milliseconds(500)));
      report_.take(response.getInfo());
    } catch (const Error&) {
      // What was known when it started is shown.
    }
  }

  void finish(schema::Outcome::Reader outcome, int code) {
    const std::string json = options_.json ? report_.endedJson(outcome, code) : std::string();
    if (!options_.json && !isQuietEnd(outcome)) {
      note("VM " + client_->vmName() + ": " + describeOutcome(outcome));
      printLastLog(outcome);
    }
    if (!options_.json) {
      printNotes(outcome);
    }
    if (outcome.hasError() && !options_.json && outcome.getError().getHint().size() > 0) {
      note("hint: " + std::string(view(outcome.getError().getHint())));
    }
    client_.reset();  // our going is the supervisor's leave to go
    client::reapSupervisor(supervisor_, kReapLimitMs);
    if (options_.timings) {
      report_.printTimings(options_.commandStartNs);
    }
    if (options_.json) {
      print(json + '\n');
    }
  }

  // A supervisor that is gone says nothing itself: how it ended, and what it left is cleared away.
  Error explained(const Error& error) {
    if (error.code() != ErrorCode::kSupervisorDied) {
      client_.reset();
      if (!greeted_) {
        client::killSupervisor(supervisor_);  // it hangs, and would not notice that nobody waits for it
      }
      client::reapSupervisor(supervisor_, kReapLimitMs);
      if (!greeted_) {
        clearAway({});
      }
      return error;
    }
    const std::string name = client_->vmName();
    client_.reset();
    const std::string how = client::reapSupervisor(supervisor_, kReapLimitMs);
    clearAway(name);
    return Error(ErrorCode::kInternal,
                 "the supervisor" + (name.empty() ? "" : " of VM " + name) + (how.empty() ? " is gone" : " " + how),
                 "`VMMHOST_DEBUG=1 vmmhost run ...` shows what it says on its standard error");
  }

  const RunOptions& options_;
  bool readsInput_ = true;
  bool greeted_ = false;
  kj::AsyncIoContext io_;
  client::LaunchedSupervisor supervisor_;
  std::unique_ptr<ControlClient> client_;
  RunReport report_;
};

Usage usage() {
  const auto options = std::make_shared<RunOptions>();
  options->commandStartNs = monotonicNanoseconds();  // nothing has been done before but to look for the verb
  Usage usage = {
      .options = {{"--backend", kBackend, "Backend by name, or auto (auto)", &options->backend}},
      .notes =
          "The console is standard input and output; in a terminal ^] opens a menu (detach, kill, cancel).\n"
          "The end of standard input does not end the VM; the loss of standard output does. With --json the console's\n"
          "output goes to standard error, and the outcome as JSON to standard output.\n"
          "Exit code: 0 the guest powered off, 1 it crashed or panicked or its worker died, 3 it asked for a reset,\n"
          "124 --timeout, 125 vmmhost's own error or wrong usage, 126 the backend is unusable, 127 no such thing,\n"
          "129, 130 or 143 a signal ended it.",
      .carryOut = [options]() { return Run(*options).carryOut(); },
  };
  addVmOptions(usage.options, options->flags);
  const std::vector<Option> more = {
      {"-d,--detach", kFlag, "Print the VM's name once it runs, and leave it running", &options->detach},
      {"--rm", kFlag, "Keep nothing of the VM when it has ended", &options->removeOnEnd},
      {"--timeout", kSeconds, "End the VM after this time (exit code 124)", &options->timeoutSeconds},
      {"--timings", kFlag, "Print where the time went on standard error", &options->timings},
      {"--without",
       {"PART"},
       "Start even if this part of the worker's jail cannot be had on this machine",
       &options->without,
       Presence::kOptional,
       List::kWords},
      {"--explain-jail", kFlag, "Tell of a call that the worker's jail forbids: its arguments, and what would allow it",
       &options->explainJail},
      jsonOption(options->json),
  };
  usage.options.insert(usage.options.end(), more.begin(), more.end());
  return usage;
}

}  // namespace

const Verb kRunVerb = {"run", "Start a VM, attached to its console", usage};

}  // namespace vmmhost::cli
