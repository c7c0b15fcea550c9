#include "host/control/control_server.h"

#include <algorithm>
#include <csignal>
#include <map>

#include "host/base/build_info.h"
#include "host/base/text.h"
#include "ipc/rpc/answer.h"

namespace vmmhost::control {
namespace {

constexpr std::size_t kMaxReason = 256;
// Watching a VM costs the supervisor little, but not nothing.
constexpr unsigned kMaxWatchesPerClient = 8;
constexpr unsigned kMaxConsolesPerClient = 4;
constexpr std::size_t kMaxNews = 64;  // under way to one client
constexpr auto kHelloDeadline = 5 * kj::SECONDS;

// All clients together must cost little. What they send is short; an answer that waits takes 9 KiB.
rpc::Limits clientLimits() {
  rpc::Limits limits;
  limits.maxQueuedMessages = 4;
  limits.maxOpenQuestions = 16;
  limits.maxMessageWords = 1024;
  limits.flowLimitWords = 2048;
  return limits;
}

std::string bounded(capnp::Text::Reader text) {
  return printable(std::string_view(text.cStr(), text.size()), kMaxReason);
}

// Of a client that tells none: those before 1.2 have its name as the reason.
int signalOf(const std::string& reason) {
  return reason == "SIGINT" ? SIGINT : reason == "SIGHUP" ? SIGHUP : SIGTERM;
}

int checkedSignal(std::int32_t told, const std::string& reason) {
  if (told == 0) {
    return signalOf(reason);
  }
  if (told < 0 || told >= NSIG) {
    throw Error(ErrorCode::kInvalidArgument, "there is no signal " + std::to_string(told));
  }
  return told;
}

}  // namespace

// What a client's capability knows of the client: it may outlive its connection, in calls that are under way.
struct ControlServer::Presence {
  bool starter = false;
  bool greeted = false;
  Client* client = nullptr;  // null once it is gone
  kj::Canceler calls;        // those that wait for something: they hold memory of the connection until they end
};

// The capability that one connection gets.
class ControlServer::Session final : public schema::Control::Server {
 public:
  Session(ControlServer& server, std::shared_ptr<Presence> presence)
      : server_(server), target_(server.target_), presence_(std::move(presence)) {}

  kj::Promise<void> hello(HelloContext context) override {
    if (!presence_->greeted) {
      presence_->greeted = true;
      const auto build = context.getParams().getBuild();
      server_.greeted({build.begin(), build.size()});
    }
    return rpc::answer(context, [context]() mutable {
      auto results = context.getResults();
      results.setMajor(schema::CONTROL_MAJOR);
      results.setMinor(schema::CONTROL_MINOR);
      results.setBuild(kj::heapString(kBuild.data(), kBuild.size()));
      if (context.getParams().getClientMajor() != schema::CONTROL_MAJOR) {
        throw Error(ErrorCode::kProtocol,
                    "this supervisor speaks control protocol " + std::to_string(schema::CONTROL_MAJOR) +
                        ", the client " + std::to_string(context.getParams().getClientMajor()),
                    "use the vmmhost command that started this VM");
      }
    });
  }

  kj::Promise<void> info(InfoContext context) override {
    context.allowCancellation();
    return rpc::answer(context, [this, context]() mutable {
      const std::chrono::milliseconds within(context.getParams().getMemoryWithinMs());
      return whileHere(target_.measureMemory(within)).then([this, context](std::uint64_t privateBytes) mutable {
        target_.describe(context.getResults().initInfo(), privateBytes);
      });
    });
  }

  kj::Promise<void> shutdown(ShutdownContext context) override {
    return rpc::answer(context, [this]() { return vm().abilities().shutdown(); });
  }

  kj::Promise<void> stop(StopContext context) override {
    context.allowCancellation();  // of the waiting, not of the end
    return rpc::answer(context, [this, context]() mutable {
      const auto params = context.getParams();
      auto kind = params.getKind();
      if (kind != schema::EndKind::STOPPED && kind != schema::EndKind::SIGNALLED &&
          kind != schema::EndKind::CLIENT_GONE) {
        kind = schema::EndKind::STOPPED;
      }
      const std::string reason = bounded(params.getReason());
      const int signal = checkedSignal(params.getSignal(), reason);
      return whileHere(target_.stop(kind, reason, signal).then([this]() { return target_.onFinished(); }))
          .then([this, context]() mutable { vm::writeOutcome(target_.outcome(), context.getResults().initOutcome()); });
    });
  }

  kj::Promise<void> pause(PauseContext context) override {
    return rpc::answer(context, [this]() { return vm().abilities().pause(); });
  }
  kj::Promise<void> resume(ResumeContext context) override {
    return rpc::answer(context, [this]() { return vm().abilities().resume(); });
  }
  kj::Promise<void> reset(ResetContext context) override {
    return rpc::answer(context, [this]() { return vm().abilities().reset(); });
  }

  kj::Promise<void> wait(WaitContext context) override {
    context.allowCancellation();
    return rpc::answer(context, [this, context]() mutable {
      return whileHere(target_.onFinished()).then([this, context]() mutable {
        vm::writeOutcome(target_.outcome(), context.getResults().initOutcome());
      });
    });
  }

  kj::Promise<void> console(ConsoleContext context) override {
    context.allowCancellation();
    return rpc::answer(context, [this, context]() mutable {
      if (++consoles_ > kMaxConsolesPerClient) {
        throw Error(ErrorCode::kResourceExhausted,
                    "one client may attach to the console only " + std::to_string(kMaxConsolesPerClient) + " times");
      }
      // Asked for early, it is attached before the guest says anything.
      return whileHere(target_.onConsole()).then(rpc::guarded([this, context]() mutable {
        const auto params = context.getParams();
        context.getResults().setStream(
            rpc::makeDescriptor(vm().consoles().attach(params.getPort(), params.getReplayBytes(), params.getInput())));
      }));
    });
  }

  kj::Promise<void> setBalloon(SetBalloonContext context) override {
    return rpc::answer(
        context, [this, context]() mutable { return vm().abilities().setBalloon(context.getParams().getTarget()); });
  }
  kj::Promise<void> balloon(BalloonContext context) override {
    return rpc::answer(context, [this, context]() mutable {
      return vm().abilities().balloon().then([context](vm::VmAbilities::Balloon state) mutable {
        context.getResults().setTarget(state.target);
        context.getResults().setActual(state.actual);
      });
    });
  }

  kj::Promise<void> resizeConsole(ResizeConsoleContext context) override {
    return rpc::answer(context, [this, context]() mutable {
      const auto params = context.getParams();
      return vm().abilities().resizeConsole(params.getPort(), params.getColumns(), params.getRows());
    });
  }

  kj::Promise<void> abilities(AbilitiesContext context) override {
    return rpc::answer(context,
                       [this, context]() mutable { vm().abilities().handOut(context.getResults().initAbilities()); });
  }

  kj::Promise<void> watch(WatchContext context) override {
    return rpc::answer(context, [this, context]() mutable {
      if (watches_.size() >= kMaxWatchesPerClient) {
        throw Error(ErrorCode::kResourceExhausted,
                    "one client may watch a VM only " + std::to_string(kMaxWatchesPerClient) + " times");
      }
      auto sink = std::make_shared<schema::StateSink::Client>(context.getParams().getSink());
      watches_.push_back(
          vm().life().watch([this, sink](schema::VmState state, std::int64_t unixMs, const std::string& detail) {
            if (presence_->client == nullptr) {
              return;
            }
            // Nothing may be left out of the news; who does not take them is let go.
            if (presence_->client->connection->unansweredCalls() >= kMaxNews) {
              server_.log_.write(Severity::kWarning, "control", "a client was cut off: it watches and does not answer");
              server_.remove(*presence_->client);
              return;
            }
            auto request = sink->changedRequest();
            request.setState(state);
            request.setUnixMs(unixMs);
            request.setDetail(detail);
            // A client that is gone or that refuses loses its news; the VM does not wait for it.
            request.send().detach([](kj::Exception&&) {});
          }));
    });
  }

  kj::Promise<void> started(StartedContext context) override {
    context.allowCancellation();
    return rpc::answer(context, [this, context]() mutable {
      return whileHere(target_.onStarted()).then([this, context]() mutable {
        target_.describe(context.getResults().initInfo(), 0);
      });
    });
  }

  kj::Promise<void> detach(DetachContext context) override {
    return rpc::answer(context, [this]() {
      if (!presence_->starter) {
        throw Error(ErrorCode::kFailedPrecondition, "only the client that started the VM can detach from it");
      }
      target_.starterDetached();
    });
  }

 private:
  vm::Vm& vm() {
    if (target_.vm() == nullptr) {
      throw Error(ErrorCode::kFailedPrecondition, "the VM is still being prepared", "try again in a moment", true);
    }
    return *target_.vm();
  }

  template <typename T>
  kj::Promise<T> whileHere(kj::Promise<T> promise) {
    if (presence_->client == nullptr) {
      throw Error(ErrorCode::kCancelled, "the client is gone");
    }
    return presence_->calls.wrap(kj::mv(promise));
  }

  ControlServer& server_;
  Target& target_;
  std::shared_ptr<Presence> presence_;
  unsigned consoles_ = 0;
  std::vector<std::unique_ptr<vm::Life::Watch>> watches_;
};

ControlServer::ControlServer(kj::AsyncIoContext& io, Target& target, Log& log) : io_(io), target_(target), log_(log) {
}

ControlServer::~ControlServer() = default;

void ControlServer::serveStarter(Fd socket) {
  serve(std::move(socket), 0, true);
}

void ControlServer::serve(Fd socket, pid_t process, bool starter) {
  Client& client = clients_.emplace_back();
  client.process = process;
  client.position = std::prev(clients_.end());
  client.presence = std::make_shared<Presence>();
  client.presence->starter = starter;
  client.presence->client = &client;
  client.connection = std::make_unique<rpc::Connection>(io_, std::move(socket), rpc::Side::kServer, clientLimits(),
                                                        kj::heap<Session>(*this, client.presence));
  client.watch = client.connection->onDisconnect()
                     .then([this, &client]() {
                       if (!client.connection->violation().empty()) {
                         log_.write(Severity::kWarning, "control",
                                    "a client was cut off: it sent " + client.connection->violation());
                       }
                       remove(client);
                     })
                     .eagerlyEvaluate(nullptr);
  if (!starter) {
    client.deadline = io_.provider->getTimer()
                          .afterDelay(kHelloDeadline)
                          .then([this, &client]() {
                            if (!client.presence->greeted) {
                              remove(client);
                            }
                          })
                          .eagerlyEvaluate(nullptr);
  }
}

// A command that looks every second says the same each time: that is worth one line, not the rest of the log.
void ControlServer::greeted(std::string_view theirBuild) {
  const std::string build = printable(theirBuild, kMaxBuildBytes);
  if (build == kBuild || build == loggedBuild_) {
    return;
  }
  loggedBuild_ = build;
  log_.write(Severity::kInfo, "control",
             "a client " + (build.empty() ? "tells no build" : "is of another build, " + inQuotes(build)) +
                 "; this supervisor is " + std::string(kBuild));
}

void ControlServer::remove(Client& client) {
  if (client.position == leaving_.end()) {
    return;
  }
  client.presence->client = nullptr;
  client.presence->calls.cancel("the client is gone");
  leaving_.splice(leaving_.end(), clients_, client.position);
  client.position = leaving_.end();
  // Later: it may be one of its own promises that says so, or a watcher among others.
  if (client.presence->starter) {
    starterGone_ = kj::evalLater([this]() { target_.starterGone(); }).eagerlyEvaluate(nullptr);
  }
  removal_ = kj::evalLater([this]() { leaving_.clear(); }).eagerlyEvaluate(nullptr);
}

void ControlServer::listen(Fd listener) {
  acceptor_ = std::make_unique<runtime::Acceptor>(io_, std::move(listener), log_, "control");
  acceptor_->start([this](Fd socket, pid_t process) {
    if (makeRoom(process)) {
      serve(std::move(socket), process, false);
    }  // else it is closed: the client sees the end of the connection
  });
}

// A newcomer takes the place of a connection of the process that has most of them, unless that is its own: one that has
// not said hello, else the oldest.
bool ControlServer::makeRoom(pid_t newcomer) {
  if (clients_.size() < kMaxClients) {
    return true;
  }
  std::map<pid_t, std::size_t> counts;
  for (const Client& client : clients_) {
    counts[client.process] += client.presence->starter ? 0 : 1;
  }
  const auto most = std::max_element(counts.begin(), counts.end(),
                                     [](const auto& one, const auto& other) { return one.second < other.second; });
  if (most->second < 2 || counts[newcomer] >= most->second) {
    return false;
  }
  Client* loser = nullptr;
  for (Client& client : clients_) {
    if (!client.presence->starter && client.process == most->first &&
        (loser == nullptr || (loser->presence->greeted && !client.presence->greeted))) {
      loser = &client;
    }
  }
  remove(*loser);
  return true;
}

}  // namespace vmmhost::control
