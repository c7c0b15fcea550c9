#include "host/control/control_server.h"

#include <sys/socket.h>

#include <cerrno>
#include <csignal>

#include "host/base/build_info.h"
#include "ipc/rpc/answer.h"

namespace vmmhost::control {
namespace {

constexpr std::size_t kMaxReason = 256;
// Watching a VM costs the supervisor little, but not nothing.
constexpr unsigned kMaxWatchesPerClient = 8;
constexpr unsigned kMaxConsolesPerClient = 4;

std::string bounded(capnp::Text::Reader text) {
  return escapeControl(std::string_view(text.cStr(), text.size()), kMaxReason);
}

int signalNumber(std::string_view name) {
  if (name == "SIGINT") {
    return SIGINT;
  }
  return name == "SIGHUP" ? SIGHUP : SIGTERM;
}

}  // namespace

// The capability that one connection gets.
class ControlServer::Session final : public schema::Control::Server {
 public:
  Session(Target& target, bool starter) : target_(target), starter_(starter) {}

  kj::Promise<void> hello(HelloContext context) override {
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
    return rpc::answer(context, [this, context]() mutable { target_.describe(context.getResults().initInfo(), true); });
  }

  kj::Promise<void> shutdown(ShutdownContext context) override {
    return rpc::answer(context, [this]() { return vm().shutdown(); });
  }

  kj::Promise<void> stop(StopContext context) override {
    return rpc::answer(context, [this, context]() mutable {
      const auto params = context.getParams();
      auto kind = params.getKind();
      if (kind != schema::EndKind::STOPPED && kind != schema::EndKind::SIGNALLED &&
          kind != schema::EndKind::CLIENT_GONE) {
        kind = schema::EndKind::STOPPED;
      }
      const std::string reason = bounded(params.getReason());
      return target_.stop(kind, reason, signalNumber(reason))
          .then([this]() { return target_.onFinished(); })
          .then([this, context]() mutable { vm::writeOutcome(target_.outcome(), context.getResults().initOutcome()); });
    });
  }

  kj::Promise<void> pause(PauseContext context) override {
    return rpc::answer(context, [this]() { return vm().pause(); });
  }
  kj::Promise<void> resume(ResumeContext context) override {
    return rpc::answer(context, [this]() { return vm().resume(); });
  }
  kj::Promise<void> reset(ResetContext context) override {
    return rpc::answer(context, [this]() { return vm().reset(); });
  }

  kj::Promise<void> wait(WaitContext context) override {
    return rpc::answer(context, [this, context]() mutable {
      return target_.onFinished().then(
          [this, context]() mutable { vm::writeOutcome(target_.outcome(), context.getResults().initOutcome()); });
    });
  }

  kj::Promise<void> console(ConsoleContext context) override {
    return rpc::answer(context, [this, context]() mutable {
      if (++consoles_ > kMaxConsolesPerClient) {
        throw Error(ErrorCode::kResourceExhausted,
                    "one client may attach to the console only " + std::to_string(kMaxConsolesPerClient) + " times");
      }
      // Asked for early, it is attached before the guest says anything.
      return target_.onConsole().then(rpc::guarded([this, context]() mutable {
        const auto params = context.getParams();
        context.getResults().setStream(
            rpc::makeDescriptor(vm().attachConsole(params.getReplayBytes(), params.getInput())));
      }));
    });
  }

  kj::Promise<void> watch(WatchContext context) override {
    return rpc::answer(context, [this, context]() mutable {
      if (watches_.size() >= kMaxWatchesPerClient) {
        throw Error(ErrorCode::kResourceExhausted,
                    "one client may watch a VM only " + std::to_string(kMaxWatchesPerClient) + " times");
      }
      auto sink = std::make_shared<schema::StateSink::Client>(context.getParams().getSink());
      watches_.push_back(vm().watch([sink](schema::VmState state, std::int64_t unixMs, const std::string& detail) {
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
    return rpc::answer(context, [this, context]() mutable {
      return target_.onStarted().then(
          [this, context]() mutable { target_.describe(context.getResults().initInfo(), false); });
    });
  }

  kj::Promise<void> detach(DetachContext context) override {
    return rpc::answer(context, [this]() {
      if (!starter_) {
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

  Target& target_;
  bool starter_;
  unsigned consoles_ = 0;
  std::vector<std::unique_ptr<vm::Vm::Watch>> watches_;
};

ControlServer::ControlServer(kj::AsyncIoContext& io, Target& target, Log& log) : io_(io), target_(target), log_(log) {
}

ControlServer::~ControlServer() = default;

void ControlServer::serveStarter(Fd socket) {
  serve(std::move(socket), true);
}

void ControlServer::serve(Fd socket, bool starter) {
  clients_.emplace_back();
  const auto client = std::prev(clients_.end());
  client->connection = std::make_unique<rpc::Connection>(io_, std::move(socket), rpc::Side::kServer, rpc::Limits(),
                                                         kj::heap<Session>(target_, starter));
  client->watch = client->connection->onDisconnect()
                      .then([this, client, starter]() {
                        if (!client->connection->violation().empty()) {
                          log_.write(Severity::kWarning, "control",
                                     "a client was cut off: it sent " + client->connection->violation());
                        }
                        if (starter) {
                          target_.starterGone();
                        }
                        remove(client);
                      })
                      .eagerlyEvaluate(nullptr);
}

void ControlServer::remove(std::list<Client>::iterator client) {
  // Later: it is the client's own promise that says so.
  removal_ = removal_.then([this, client]() { clients_.erase(client); }).eagerlyEvaluate(nullptr);
}

void ControlServer::listen(Fd listener) {
  listener_ = std::move(listener);
  observer_ = std::make_unique<kj::UnixEventPort::FdObserver>(io_.unixEventPort, listener_.get(),
                                                              kj::UnixEventPort::FdObserver::OBSERVE_READ);
  accepting_ = acceptLoop().eagerlyEvaluate(nullptr);
}

kj::Promise<void> ControlServer::acceptLoop() {
  auto readable = observer_->whenBecomesReadable();
  acceptAll();
  return readable.then([this]() { return acceptLoop(); });
}

void ControlServer::acceptAll() {
  for (;;) {
    Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) {
      if (errno == EINTR || errno == ECONNABORTED) {
        continue;
      }
      if (errno != EAGAIN) {
        log_.write(Severity::kWarning, "control", systemError("accepting a client", errno).message());
      }
      return;
    }
    ucred peer = {};
    socklen_t length = sizeof(peer);
    if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0 ||
        (peer.uid != ::geteuid() && peer.uid != 0)) {
      log_.write(Severity::kWarning, "control", "a client of uid " + std::to_string(peer.uid) + " was refused");
      continue;
    }
    if (clients_.size() >= kMaxClients) {
      continue;  // closed: the client sees the end of the connection
    }
    serve(std::move(socket), false);
  }
}

}  // namespace vmmhost::control
