#include "host/runtime/acceptor.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace vmmhost::runtime {
namespace {

using Observer = kj::UnixEventPort::FdObserver;

constexpr int kAcceptsPerTurn = 32;
constexpr auto kAcceptPause = 100 * kj::MILLISECONDS;  // when descriptors or memory have run out

// Left without having said anything.
bool isGone(const Fd& socket) {
  pollfd end = {socket.get(), 0, 0};
  char byte;
  return ::poll(&end, 1, 0) == 1 && (end.revents & POLLHUP) != 0 &&
         ::recv(socket.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

}  // namespace

Acceptor::Acceptor(kj::AsyncIoContext& io, Fd listener, Log& log, std::string subject)
    : io_(io),
      listener_(std::move(listener)),
      log_(log),
      subject_(std::move(subject)),
      observer_(io.unixEventPort, listener_.get(), Observer::OBSERVE_READ) {
}

void Acceptor::start(Take take, HasRoom hasRoom) {
  take_ = std::move(take);
  hasRoom_ = std::move(hasRoom);
  accepting_ = acceptLoop().eagerlyEvaluate(nullptr);
}

void Acceptor::roomMade() {
  KJ_IF_MAYBE (waiting, roomMade_) {
    (*waiting)->fulfill();
    roomMade_ = nullptr;
  }
}

kj::Promise<void> Acceptor::acceptLoop() {
  auto next = observer_.whenBecomesReadable();
  if (!hasRoom_()) {
    auto pair = kj::newPromiseAndFulfiller<void>();
    roomMade_ = kj::mv(pair.fulfiller);
    next = kj::mv(pair.promise);
  } else KJ_IF_MAYBE (pause, acceptSome()) {
    next = io_.provider->getTimer().afterDelay(*pause);
  }
  return next.then([this]() { return acceptLoop(); });
}

kj::Maybe<kj::Duration> Acceptor::acceptSome() {
  for (int accepted = 0; accepted < kAcceptsPerTurn && hasRoom_(); ++accepted) {
    Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) {
      if (errno == EINTR || errno == ECONNABORTED) {
        continue;
      }
      if (errno == EAGAIN) {
        return nullptr;
      }
      log_.write(Severity::kWarning, subject_, systemError("accepting a client", errno).message());
      return kAcceptPause;
    }
    if (isGone(socket)) {
      continue;
    }
    ucred peer = {};
    socklen_t length = sizeof(peer);
    if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0 ||
        (peer.uid != ::geteuid() && peer.uid != 0)) {
      log_.write(Severity::kWarning, subject_, "a client of uid " + std::to_string(peer.uid) + " was refused");
      continue;
    }
    take_(std::move(socket), peer.pid);
  }
  return 0 * kj::SECONDS;
}

}  // namespace vmmhost::runtime
