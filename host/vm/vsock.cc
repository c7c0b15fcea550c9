#include "host/vm/vsock.h"

#include <kj/debug.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>

#include "host/runtime/sockets.h"
#include "host/vm/vsock_line.h"
#include "ipc/rpc/answer.h"
#include "ipc/rpc/connection.h"

namespace vmmhost::vm {
namespace {

using Observer = kj::UnixEventPort::FdObserver;

constexpr int kBacklog = 128;
// A guest decides how often it tries.
constexpr auto kBetweenRefusals = 1 * kj::SECONDS;

}  // namespace

// Counts for as long as the worker owes something: an answer, or to drop the descriptor.
class Vsock::Loan {
 public:
  Loan(std::shared_ptr<Loans> loans, std::size_t Loans::*count) : loans_(std::move(loans)), count_(count) {
    ++((*loans_).*count_);
  }
  ~Loan() {
    --((*loans_).*count_);
    if (loans_->owner != nullptr) {
      loans_->owner->handOver();
    }
  }
  Loan(const Loan&) = delete;
  Loan& operator=(const Loan&) = delete;

 private:
  std::shared_ptr<Loans> loans_;
  std::size_t Loans::*count_;
};

class Vsock::LentDescriptor final : public schema::Descriptor::Server {
 public:
  LentDescriptor(Fd descriptor, std::shared_ptr<Loan> loan)
      : loan_(std::move(loan)), descriptor_(std::move(descriptor)) {}
  kj::Maybe<int> getFd() override { return descriptor_.get(); }

 private:
  std::shared_ptr<Loan> loan_;
  Fd descriptor_;
};

class Vsock::HostServer final : public schema::VsockHost::Server {
 public:
  explicit HostServer(std::shared_ptr<Loans> loans) : loans_(std::move(loans)) {}

  kj::Promise<void> connect(ConnectContext context) override {
    return rpc::answer(context, [this, context]() mutable {
      if (loans_->owner == nullptr) {
        throw Error(ErrorCode::kUnavailable, "the VM has ended");
      }
      if (loans_->services >= kMaxLent) {
        throw Error(ErrorCode::kResourceExhausted, "too many connections are on their way to the worker", {}, true);
      }
      const std::string name = std::string(runtime::kVsockSocket) + '_' + std::to_string(context.getParams().getPort());
      Fd socket;
      try {
        socket = runtime::connectIn(loans_->owner->folder_.get(), name);
      } catch (const Error& error) {
        loans_->owner->noteRefusal(error);
        throw;
      }
      context.getResults().setSocket(
          kj::heap<LentDescriptor>(std::move(socket), std::make_shared<Loan>(loans_, &Loans::services)));
    });
  }

 private:
  std::shared_ptr<Loans> loans_;
};

// A client that has not been handed over.
class Vsock::Client {
 public:
  Client(Vsock& owner, Fd socket) : owner_(owner), socket_(std::move(socket)) {
    observer_ = std::make_unique<Observer>(owner.io_.unixEventPort, socket_.get(), Observer::OBSERVE_READ);
  }
  // Once it is one of the owner's: takes its line if that is there already.
  void begin() {
    task_ =
        readLine()
            .exclusiveJoin(owner_.io_.provider->getTimer().afterDelay(owner_.clientLimit_).then([this]() { leave(); }))
            .eagerlyEvaluate([this](kj::Exception&&) { leave(); });
  }

  bool isReady() const { return port_.has_value() && !hasLeft_; }
  bool hasLeft() const { return hasLeft_; }
  std::uint32_t port() const { return *port_; }
  // Its socket belongs to the caller from now on.
  Fd takeSocket() {
    observer_.reset();  // before anybody else has it: an event port would go on to watch it
    return std::move(socket_);
  }
  void leave() {
    if (!std::exchange(hasLeft_, true)) {
      owner_.finish(*this);
    }
  }

 private:
  // Not a byte behind the line is taken: that is for the guest.
  kj::Promise<void> readLine() {
    while (!hasLeft_) {  // others may have let it go since this was asked for
      auto readable = observer_->whenBecomesReadable();
      char next[kMaxConnectLine];
      const std::size_t room = kMaxConnectLine - line_.size();
      const ssize_t seen = ::recv(socket_.get(), next, room, MSG_PEEK | MSG_DONTWAIT);
      if (seen < 0 && errno == EAGAIN) {
        return readable.then([this]() { return readLine(); });
      }
      if (seen <= 0) {
        leave();
        return kj::NEVER_DONE;
      }
      const std::size_t before = line_.size();
      line_.append(next, static_cast<std::size_t>(seen));
      const ConnectLine line = parseConnectLine(line_);
      if (line.state == ConnectLine::State::kWrong) {
        leave();
        return kj::NEVER_DONE;
      }
      const bool isWhole = line.state == ConnectLine::State::kPort;
      const std::size_t taken = isWhole ? line.bytes - before : static_cast<std::size_t>(seen);
      [[maybe_unused]] const ssize_t got = ::recv(socket_.get(), next, taken, MSG_DONTWAIT);
      if (isWhole) {
        port_ = line.port;
        owner_.handOver();
        return kj::NEVER_DONE;  // until its time is over
      }
    }
    return kj::NEVER_DONE;
  }

  Vsock& owner_;
  Fd socket_;
  std::unique_ptr<Observer> observer_;
  std::string line_;
  std::optional<std::uint32_t> port_;
  bool hasLeft_ = false;
  kj::Promise<void> task_ = nullptr;
};

Vsock::Vsock(kj::AsyncIoContext& io, Fd folder, std::string path, Log& log, kj::Duration clientLimit)
    : io_(io),
      log_(log),
      folder_(std::move(folder)),
      path_(std::move(path)),
      clientLimit_(clientLimit),
      loans_(std::make_shared<Loans>()),
      acceptor_(io, runtime::listenIn(folder_.get(), runtime::kVsockSocket, kBacklog), log, "vsock") {
  loans_->owner = this;
}

Vsock::~Vsock() {
  if (untoldRefusals_ > 0) {
    log_.write(Severity::kWarning, "vsock",
               std::to_string(untoldRefusals_) + " more connections of the guest were refused");
  }
  loans_->owner = nullptr;
  ::unlinkat(folder_.get(), runtime::kVsockSocket, 0);
}

schema::VsockHost::Client Vsock::host() {
  return kj::heap<HostServer>(loans_);
}

void Vsock::connectTo(schema::VsockDevice::Client device) {
  device_ = kj::mv(device);
  acceptor_.start([this](Fd socket, pid_t) { add(std::move(socket)); }, [this] { return !isFull(); });
}

Fd Vsock::connect(std::uint32_t port) {
  if (isFull()) {
    throw Error(ErrorCode::kResourceExhausted, "too many connections wait for the guest", "try again", true);
  }
  rpc::SocketPair pair = rpc::makeSocketPair(rpc::RemoteEnd::kNonBlocking);
  const std::string line = "CONNECT " + std::to_string(port) + '\n';
  if (::send(pair.local.get(), line.data(), line.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(line.size())) {
    throw systemError("connecting to the guest", errno);
  }
  add(std::move(pair.remote));
  return std::move(pair.local);
}

// That nobody listens is an everyday answer; a service that is there and was not reached is worth a line.
void Vsock::noteRefusal(const Error& error) {
  if (error.code() == ErrorCode::kNotFound) {
    return;
  }
  const kj::TimePoint now = io_.provider->getTimer().now();
  if (lastRefusal_ && now - *lastRefusal_ < kBetweenRefusals) {
    ++untoldRefusals_;
    return;
  }
  lastRefusal_ = now;
  const unsigned untold = std::exchange(untoldRefusals_, 0);
  log_.write(Severity::kWarning, "vsock",
             "a connection of the guest was refused: " + error.message() +
                 (untold == 0 ? "" : " (and " + std::to_string(untold) + " before it)"));
}

bool Vsock::isFull() const {
  const auto ready = std::count_if(clients_.begin(), clients_.end(), [](const Client& one) { return one.isReady(); });
  return static_cast<std::size_t>(ready) >= kMaxClients;
}

void Vsock::add(Fd socket) {
  const auto present =
      std::count_if(clients_.begin(), clients_.end(), [](const Client& one) { return !one.hasLeft(); });
  if (static_cast<std::size_t>(present) >= kMaxClients) {
    // Who has been there longest without saying what it wants makes room.
    const auto silent = std::find_if(clients_.begin(), clients_.end(),
                                     [](const Client& one) { return !one.hasLeft() && !one.isReady(); });
    silent->leave();  // there is one: else it would be full
  }
  clients_.emplace_back(*this, std::move(socket)).begin();
}

void Vsock::finish(Client& client) {
  client.takeSocket().reset();
  acceptor_.roomMade();
  // Later: it may be one of its own promises that says so.
  removal_ = kj::evalLater([this]() {
               std::erase_if(clients_, [](const Client& one) { return one.hasLeft(); });
             }).eagerlyEvaluate(nullptr);
}

void Vsock::handOver() {
  for (Client& client : clients_) {
    if (loans_->clients >= kMaxLent) {
      return;  // called again when one is taken
    }
    if (!client.isReady()) {
      continue;
    }
    auto request = device_->connectRequest();
    request.setPort(client.port());
    auto loan = std::make_shared<Loan>(loans_, &Loans::clients);
    request.setSocket(kj::heap<LentDescriptor>(client.takeSocket(), loan));
    client.leave();
    // A worker that does not want it drops it, which closes it.
    request.send().ignoreResult().attach(std::move(loan)).detach([](kj::Exception&&) {});
  }
}

}  // namespace vmmhost::vm
