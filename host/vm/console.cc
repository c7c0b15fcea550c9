#include "host/vm/console.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "ipc/rpc/connection.h"

namespace vmmhost::vm {

using Observer = kj::UnixEventPort::FdObserver;

// What a client that reads slowly is behind of the ring's newest at most. The kernel doubles it for its own overhead.
constexpr int kSendBuffer = 32 * 1024;

// One attached client. It is removed by the console, never by itself: done() tells when.
class Console::Client {
 public:
  Client(Console& console, Fd socket, std::uint64_t cursor, bool input)
      : console_(console),
        socket_(std::move(socket)),
        observer_(console.io_.unixEventPort, socket_.get(), Observer::OBSERVE_READ_WRITE),
        cursor_(cursor),
        input_(input) {
    output_ = pumpOutput().eagerlyEvaluate(nullptr);
    inputTask_ = pumpInput().eagerlyEvaluate(nullptr);
  }

  bool done() const { return done_; }
  // The other end is closed, whatever waits here to be sent or read. One that only types no more has not left.
  bool hasLeft() const {
    pollfd end = {socket_.get(), 0, 0};
    return ::poll(&end, 1, 0) == 1 && (end.revents & (POLLHUP | POLLERR)) != 0;
  }
  void wake() {
    KJ_IF_MAYBE (waiter, newData_) {
      (*waiter)->fulfill();
      newData_ = nullptr;
    }
  }
  void wakeInput() {
    KJ_IF_MAYBE (waiter, inputSpace_) {
      (*waiter)->fulfill();
      inputSpace_ = nullptr;
    }
  }

 private:
  kj::Promise<void> pumpOutput() {
    auto writable = observer_.whenBecomesWritable();
    while (!done_) {
      if (pending_.empty() && cursor_ == console_.end_) {
        if (console_.finished_) {
          finish();
          return kj::READY_NOW;
        }
        auto paf = kj::newPromiseAndFulfiller<void>();
        newData_ = kj::mv(paf.fulfiller);
        return paf.promise.then([this]() { return pumpOutput(); });
      }
      fillPending();
      const ssize_t sent = ::send(socket_.get(), pending_.data(), pending_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0) {
        if (errno == EAGAIN) {
          return writable.then([this]() { return pumpOutput(); });
        }
        finish();
        return kj::READY_NOW;
      }
      pending_.erase(0, static_cast<std::size_t>(sent));
    }
    return kj::READY_NOW;
  }

  void fillPending() {
    if (!pending_.empty()) {
      return;
    }
    const std::uint64_t start = console_.ringStart();
    if (cursor_ < start) {
      pending_ = "\r\n[vmmhost: " + std::to_string(start - cursor_) + " bytes of console output lost]\r\n";
      cursor_ = start;
      return;
    }
    const std::size_t offset = cursor_ % kRingBytes;
    const std::size_t count = std::min<std::uint64_t>({console_.end_ - cursor_, kRingBytes - offset, 16384});
    pending_.assign(console_.ring_, offset, count);
    cursor_ += count;
  }

  kj::Promise<void> pumpInput() {
    auto readable = observer_.whenBecomesReadable();
    if (console_.input_.size() >= kMaxInput) {
      // A guest that hangs takes none for ever, and clients leave meanwhile: what they typed last is lost.
      if (hasLeft()) {
        finish();
        return kj::READY_NOW;
      }
      auto paf = kj::newPromiseAndFulfiller<void>();
      inputSpace_ = kj::mv(paf.fulfiller);
      return paf.promise.exclusiveJoin(kj::mv(readable)).then([this]() { return pumpInput(); });
    }
    char buffer[4096];
    const ssize_t got = ::recv(socket_.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) {
      return readable.then([this]() { return pumpInput(); });
    }
    if (got <= 0) {
      // A client that has nothing more to type may still read. One that is gone goes, though the guest be silent.
      if (got < 0 || hasLeft()) {
        finish();
        return kj::READY_NOW;
      }
      return readable.then([this]() { return pumpInput(); });
    }
    if (input_ && !console_.finished_) {
      console_.input_.append(buffer, static_cast<std::size_t>(got));
      if (!console_.inputPumping_) {
        console_.inputPumping_ = true;
        console_.inputPump_ = console_.pumpInput().eagerlyEvaluate(nullptr);
      }
    }
    return kj::evalLater([this]() { return pumpInput(); });
  }

  void finish() {
    if (!std::exchange(done_, true)) {
      ::shutdown(socket_.get(), SHUT_WR);
      console_.dropFinished();
    }
  }

  Console& console_;
  Fd socket_;
  Observer observer_;
  std::uint64_t cursor_;
  bool input_;
  bool done_ = false;
  std::string pending_;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> newData_;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> inputSpace_;
  kj::Promise<void> output_ = nullptr;
  kj::Promise<void> inputTask_ = nullptr;
};

Console::Console(kj::AsyncIoContext& io, Fd guest, std::unique_ptr<RotatingFile> file)
    : io_(io),
      guest_(std::move(guest)),
      file_(std::move(file)),
      observer_(kj::heap<Observer>(io.unixEventPort, guest_.get(), Observer::OBSERVE_READ_WRITE)) {
  guestPump_ = pumpGuest().eagerlyEvaluate(nullptr);
}

Console::~Console() = default;

Fd Console::attach(std::uint32_t replayBytes, bool input) {
  if (clients_.size() >= kMaxClients) {
    // The event loop may not have seen yet who has left.
    std::erase_if(clients_, [](const auto& client) { return client->done() || client->hasLeft(); });
  }
  if (clients_.size() >= kMaxClients) {
    throw Error(ErrorCode::kResourceExhausted, "the console has " + std::to_string(kMaxClients) + " clients already",
                "detach one of them");
  }
  rpc::SocketPair sockets = rpc::makeSocketPair();
  ::setsockopt(sockets.local.get(), SOL_SOCKET, SO_SNDBUF, &kSendBuffer, sizeof(kSendBuffer));
  const std::uint64_t replay = std::min<std::uint64_t>({replayBytes, end_, kRingBytes});
  clients_.push_back(std::make_unique<Client>(*this, std::move(sockets.local), end_ - replay, input));
  return std::move(sockets.remote);
}

kj::Promise<void> Console::pumpGuest() {
  auto readable = observer_->whenBecomesReadable();
  if (readGuest()) {
    return io_.provider->getTimer().afterDelay(0 * kj::NANOSECONDS).then([this]() { return pumpGuest(); });
  }
  return readable.then([this]() { return pumpGuest(); });
}

bool Console::readGuest() {
  char buffer[16 * 1024];
  for (int round = 0; round < 16; ++round) {
    const ssize_t got = ::recv(guest_.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
    if (got <= 0) {
      return false;
    }
    append(buffer, static_cast<std::size_t>(got));
  }
  return true;
}

void Console::append(const char* data, std::size_t size) {
  if (file_) {
    file_->append({data, size});
  }
  while (size > 0) {
    const std::size_t offset = end_ % kRingBytes;
    if (ring_.size() < kRingBytes && offset == ring_.size()) {
      // The ring takes memory as the guest says more.
      const std::size_t count = std::min(size, kRingBytes - ring_.size());
      ring_.append(data, count);
      data += count;
      size -= count;
      end_ += count;
      continue;
    }
    const std::size_t count = std::min(size, kRingBytes - offset);
    std::memcpy(ring_.data() + offset, data, count);
    data += count;
    size -= count;
    end_ += count;
  }
  wakeClients();
}

void Console::wakeClients() {
  for (const auto& client : clients_) {
    client->wake();
  }
}

void Console::wakeInputs() {
  if (input_.size() < kMaxInput) {
    for (const auto& client : clients_) {
      client->wakeInput();
    }
  }
}

kj::Promise<void> Console::pumpInput() {
  auto writable = observer_->whenBecomesWritable();
  while (!input_.empty() && !finished_) {
    const ssize_t sent = ::send(guest_.get(), input_.data(), input_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
      if (errno == EAGAIN) {
        return writable.then([this]() { return pumpInput(); });
      }
      input_.clear();
      break;
    }
    input_.erase(0, static_cast<std::size_t>(sent));
    wakeInputs();
  }
  wakeInputs();
  inputPumping_ = false;
  return kj::READY_NOW;
}

void Console::dropFinished() {
  // Later: it is one of the clients that says so.
  cleanup_ = kj::evalLater([this]() {
               std::erase_if(clients_, [](const auto& client) { return client->done(); });
               if (clients_.empty()) {
                 KJ_IF_MAYBE (waiter, flushed_) {
                   (*waiter)->fulfill();
                   flushed_ = nullptr;
                 }
               }
             }).eagerlyEvaluate(nullptr);
}

kj::Promise<void> Console::finish(kj::Duration limit) {
  guestPump_ = nullptr;
  while (readGuest()) {
  }
  finished_ = true;
  inputPump_ = nullptr;
  input_.clear();
  observer_ = nullptr;
  guest_.reset();
  file_ = nullptr;
  wakeClients();
  wakeInputs();
  if (clients_.empty()) {
    return kj::READY_NOW;
  }
  auto paf = kj::newPromiseAndFulfiller<void>();
  flushed_ = kj::mv(paf.fulfiller);
  return paf.promise.exclusiveJoin(io_.provider->getTimer().afterDelay(limit)).then([this]() { clients_.clear(); });
}

}  // namespace vmmhost::vm
