// vmmhost run, vmmhost console: the client of one supervisor that a person or a script sits in front of.
#include <capnp/message.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>

#include "host/base/paths.h"
#include "host/cli/console_session.h"
#include "host/cli/exit_codes.h"
#include "host/cli/output.h"
#include "host/cli/own_files.h"
#include "host/cli/ready.h"
#include "host/cli/run_report.h"
#include "host/cli/terminal.h"
#include "host/cli/verbs.h"
#include "host/cli/vm_access.h"
#include "host/client/control_client.h"
#include "host/client/environment.h"
#include "host/client/launch.h"
#include "host/config/text.h"
#include "host/config/vm_config.h"
#include "ipc/spawn/limits.h"

namespace vmmhost::cli {

namespace {

using client::ControlClient;

constexpr std::uint32_t kReplayBytes = 16384;       // what `console` shows of the past
constexpr std::uint32_t kWholeReplay = 0xffffffff;  // what `run` shows: everything that is still there
constexpr auto kDrainTimeout = 3 * kj::SECONDS;     // for the last output of a VM that has ended
constexpr int kReapLimitMs = 2000;
constexpr auto kEchoTime = 200 * kj::MILLISECONDS;  // in which the same signal is no second one

// What ended the waiting of an attached command.
struct Happening {
  enum class Kind { kEnded, kDetach, kKill, kOutputGone, kSignal };
  Kind kind = Kind::kEnded;
  int signal = 0;
};

std::string signalName(int signal) {
  const char* name = ::sigabbrev_np(signal);
  return name == nullptr ? std::to_string(signal) : "SIG" + std::string(name);
}

// A command attached to a VM: forwards the console, and waits for whatever comes first.
class Attachment {
 public:
  struct Options {
    int outputFd = STDOUT_FILENO;
    std::uint32_t replayBytes = 0;
    std::uint32_t port = 0;
    bool isAllThatIsWanted = false;  // what cannot be shown is a failure
    bool readsInput = true;
  };
  Attachment(kj::AsyncIoContext& io, ControlClient& client, const Options& options)
      : io_(io), client_(client), options_(options), signals_(io) {}

  // Waits until guest code runs (or `before`, whatever it is, is done), or for a signal.
  Happening await(kj::Promise<void> before) {
    return client::await(io_, before.then([]() { return Happening{}; }).exclusiveJoin(nextSignal()));
  }

  // The same; then follows the console and waits for the VM's end. The failure of `before` is the failure of this.
  Happening follow(kj::Promise<void> before) {
    auto pair = kj::newPromiseAndFulfiller<Happening>();
    userEvent_ = kj::mv(pair.fulfiller);
    // Asked for early, so that nothing is missed of a VM that ends at once; taken when the VM has started: until then
    // the terminal's ^C is for us.
    auto early = client_.console(options_.replayBytes, true, options_.port);
    auto outcome = client_.wait().then([this](ControlClient::WaitResponse&& response) { outcome_ = kj::mv(response); });
    auto ended = before
                     .then([this, early = kj::mv(early)]() mutable {
                       consoleDone_ = openConsole(kj::mv(early)).fork();
                       consoleOpened_ = true;
                       return consoleDone_.addBranch();
                     })
                     .then([outcome = kj::mv(outcome)]() mutable { return kj::mv(outcome); })
                     .then([]() { return Happening{}; });
    return client::await(io_, ended.exclusiveJoin(kj::mv(pair.promise)).exclusiveJoin(nextSignal()));
  }

  // Ends the VM and takes what the console still says. A second signal meanwhile throws kCancelled; timeout(1) sends
  // one to the command and to its process group, which makes it come twice.
  void stop(schema::EndKind kind, const std::string& reason) {
    auto stopped = client_.stop(kind, reason)
                       .then([this](ControlClient::StopResponse&& response) { stopped_ = kj::mv(response); })
                       .then([this]() { return drained(); });
    auto interrupted = signalAfter(io_.provider->getTimer().now() + kEchoTime).then([](Happening happening) {
      return rpc::fail(Error(ErrorCode::kCancelled,
                             "interrupted by " + signalName(happening.signal) + " while the VM was being ended"));
    });
    client::await(io_, stopped.exclusiveJoin(kj::mv(interrupted)));
  }

  schema::Outcome::Reader outcome() {
    KJ_IF_MAYBE (response, stopped_) {
      return response->getOutcome();
    }
    KJ_IF_MAYBE (response, outcome_) {
      return response->getOutcome();
    }
    return {};
  }

  // What made the console's output fail; empty: nothing did.
  std::string outputFailure() const {
    const int code = session_.get() == nullptr ? 0 : session_->outputError();
    return code == 0 ? std::string() : systemError("writing the console's output", code).message();
  }

  // The terminal as it was, for messages and for the end.
  void release() { terminal_.reset(); }

 private:
  kj::Promise<void> openConsole(kj::Promise<Fd> early) {
    return early
        .catch_([this](kj::Exception&& exception) -> kj::Promise<Fd> {
          // It was too early: the VM was still being prepared.
          if (rpc::fromKj(exception).code() == ErrorCode::kFailedPrecondition) {
            return client_.console(options_.replayBytes, true, options_.port);
          }
          return kj::mv(exception);
        })
        .then([this](Fd stream) { return attach(std::move(stream)); })
        .catch_([this](kj::Exception&& exception) {
          const Error error = rpc::fromKj(exception);
          if (options_.isAllThatIsWanted && error.code() != ErrorCode::kWorkerDied) {
            kj::throwFatalException(kj::mv(exception));
          }
          if (error.code() != ErrorCode::kWorkerDied) {
            note("the console cannot be shown: " + error.message());
          }
        });
  }

  kj::Promise<void> attach(Fd stream) {
    terminal_.emplace(STDIN_FILENO);
    const bool terminal = ::isatty(STDIN_FILENO) == 1;
    session_ = kj::heap<ConsoleSession>(
        io_, std::move(stream),
        ConsoleSession::Options{options_.outputFd, options_.readsInput, terminal,
                                terminal ? [this]() { return mayRead(); } : std::function<bool()>()});
    events_ = session_->events()
                  .then([this](SessionEvent event) {
                    const auto kind = event.kind == SessionEvent::Kind::kDetach ? Happening::Kind::kDetach
                                      : event.kind == SessionEvent::Kind::kKill ? Happening::Kind::kKill
                                                                                : Happening::Kind::kOutputGone;
                    userEvent_->fulfill(Happening{kind});
                  })
                  .eagerlyEvaluate([](kj::Exception&&) {});
    tellSize();
    return session_->pumpOutput();
  }

  bool mayRead() { return terminal_ && terminal_->take(); }

  // The guest learns how large the terminal is, where its console can be told.
  void tellSize() {
    const auto size = session_.get() == nullptr ? std::nullopt : terminalSize(options_.outputFd);
    if (size) {
      resizing_ = client_.resizeConsole(options_.port, size->columns, size->rows).eagerlyEvaluate([](kj::Exception&&) {
      });  // a backend, or a supervisor of before, without it
    }
  }

  // All that the console had to say has been written. Bounded: a VM that has ended says nothing new.
  kj::Promise<void> drained() {
    if (!consoleOpened_) {
      return kj::READY_NOW;
    }
    return consoleDone_.addBranch().exclusiveJoin(io_.provider->getTimer().afterDelay(kDrainTimeout));
  }

  kj::Promise<Happening> nextSignal() {
    return signals_.next().then([this](int signal) -> kj::Promise<Happening> {
      if (signal == SIGCONT) {
        if (terminal_) {
          terminal_->reenter();
        }
        return nextSignal();
      }
      if (signal == SIGWINCH) {
        tellSize();
        return nextSignal();
      }
      return Happening{Happening::Kind::kSignal, signal};
    });
  }

  kj::Promise<Happening> signalAfter(kj::TimePoint time) {
    return nextSignal().then([this, time](Happening happening) -> kj::Promise<Happening> {
      return io_.provider->getTimer().now() < time ? signalAfter(time) : kj::Promise<Happening>(happening);
    });
  }

  kj::AsyncIoContext& io_;
  ControlClient& client_;
  Options options_;
  SignalSource signals_;
  std::optional<RawTerminal> terminal_;
  kj::Own<kj::PromiseFulfiller<Happening>> userEvent_;
  kj::Own<ConsoleSession> session_;
  kj::Maybe<ControlClient::WaitResponse> outcome_;
  kj::Maybe<ControlClient::StopResponse> stopped_;
  kj::ForkedPromise<void> consoleDone_ = nullptr;
  bool consoleOpened_ = false;
  kj::Promise<void> events_ = nullptr;
  kj::Promise<void> resizing_ = nullptr;
};

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
  request.setClientStartNs(options.commandStartNs);
  const bool mustMeasure = client::processVariable("VMMHOST_MEASURE_MEMORY").has_value();
  request.setMeasureMemory(options.json || options.timings || mustMeasure);
  request.setAwaitMeasurement(mustMeasure);
  const auto paths = runtime::Directories::defaultPaths();
  request.setRuntimeDirectory(paths.runtime);
  request.setStateDirectory(paths.state);
  request.setPluginPath(client::processVariable("VMMHOST_PLUGIN_PATH").value_or(""));
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
          client_->setVmName(config::printable(view(info.getName()), config::kMaxNameBytes));
          if (info.getChoice().size() > 0) {
            note(view(info.getChoice()));
          }
          report_.take(info);
        });
  }

  int detached() {
    Attachment attachment(io_, *client_, {});
    const Happening happening = attachment.await(started());
    if (happening.kind == Happening::Kind::kSignal) {
      attachment.stop(schema::EndKind::SIGNALLED, signalName(happening.signal));
      return kExitSignalBase + happening.signal;
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
    const Happening happening = attachment.follow(started());
    int code = kExitOk;
    switch (happening.kind) {
      case Happening::Kind::kDetach:
        attachment.release();
        client::await(io_, client_->detach());
        note("detached from " + client_->vmName() + "; `vmmhost console " + client_->vmName() + "` attaches again");
        if (options_.json) {
          print(report_.detachedJson() + '\n');
        }
        return kExitOk;
      case Happening::Kind::kEnded:
        break;
      case Happening::Kind::kKill:
        attachment.stop(schema::EndKind::STOPPED, "killed from its console");
        break;
      case Happening::Kind::kOutputGone:
        attachment.stop(schema::EndKind::CLIENT_GONE, attachment.outputFailure());
        break;
      case Happening::Kind::kSignal:
        attachment.release();
        attachment.stop(schema::EndKind::SIGNALLED, signalName(happening.signal));
        break;
    }
    attachment.release();
    const auto outcome = attachment.outcome();
    code = happening.kind == Happening::Kind::kSignal ? kExitSignalBase + happening.signal : outcome.getExitCode();
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
    if (error.code() != ErrorCode::kWorkerDied || error.message() != client_->goneMessage()) {
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

}  // namespace

int run(const RunOptions& options) {
  return Run(options).carryOut();
}

int console(const ConsoleOptions& options) {
  const std::string& name = options.name;
  const std::uint32_t port = parseConsole("--port", options.port);
  auto io = kj::setupAsyncIo();
  const auto directories = openDirectories();
  const auto client = connectTo(io, directories, name);
  Attachment attachment(io, *client, {options.json ? STDERR_FILENO : STDOUT_FILENO, kReplayBytes, port, true});
  const Happening happening = attachment.follow(kj::READY_NOW);
  if (happening.kind == Happening::Kind::kKill) {
    attachment.stop(schema::EndKind::STOPPED, "killed from its console");
  }
  attachment.release();
  switch (happening.kind) {
    case Happening::Kind::kDetach:
      note("detached from " + name);
      break;
    case Happening::Kind::kSignal:
      return kExitSignalBase + happening.signal;  // the VM does not depend on this command
    case Happening::Kind::kOutputGone:
      note(attachment.outputFailure());
      return kExitFailed;
    default:
      if (!options.json) {
        note("VM " + name + ": " + describeOutcome(attachment.outcome()));
      }
  }
  if (options.json) {
    config::JsonWriter writer;
    writer.beginObject().member("name", name).member("detached", happening.kind == Happening::Kind::kDetach);
    if (happening.kind != Happening::Kind::kDetach) {
      writer.key("outcome").raw(outcomeJson(attachment.outcome()));
    }
    print(writer.endObject().str() + '\n');
  }
  return kExitOk;
}

}  // namespace vmmhost::cli
