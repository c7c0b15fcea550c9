// vmmhost vsock: standard input and output, joined with a port of a guest.
#include <errno.h>
#include <kj/async-io.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "host/cli/base/exit_codes.h"
#include "host/cli/base/output.h"
#include "host/cli/base/vm_access.h"
#include "host/cli/terminal/ready.h"
#include "host/cli/verbs/shared_usage.h"
#include "host/cli/verbs/verbs.h"
#include "host/client/control_client.h"
#include "host/runtime/directories.h"

namespace vmmhost::cli {

namespace {

struct VsockOptions {
  std::string name;
  std::string port;
};

constexpr std::size_t kOutputBytes = 65536;
constexpr std::size_t kMaxReply = 32;
// Longer than the guest is given to answer.
constexpr std::chrono::milliseconds kReplyLimit{20000};

// One connection, from CONNECT on.
class VsockSession {
 public:
  VsockSession(kj::AsyncIoContext& io, Fd socket)
      : socket_(std::move(socket)),
        observer_(io.unixEventPort, socket_.get(), kj::UnixEventPort::FdObserver::OBSERVE_READ_WRITE),
        stdin_(io, STDIN_FILENO, ReadyFd::Direction::kRead),
        stdout_(io, STDOUT_FILENO, ReadyFd::Direction::kWrite),
        output_(kOutputBytes) {}

  // True once the guest has accepted, false if it has not.
  kj::Promise<bool> open(std::uint32_t port) {
    const std::string line = "CONNECT " + std::to_string(port) + "\n";
    // A new socket has room for a line.
    if (::send(socket_.get(), line.data(), line.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(line.size())) {
      return false;
    }
    return readReply();
  }

  // Both ways, until both are over. 0, or the errno value of a failed write to standard output.
  kj::Promise<int> join() {
    auto toGuest = pumpInput();
    return pumpOutput().exclusiveJoin(toGuest.then([]() -> kj::Promise<int> { return kj::NEVER_DONE; }));
  }

 private:
  kj::Promise<bool> readReply() {
    while (reply_.size() < kMaxReply) {
      auto readable = observer_.whenBecomesReadable();
      char byte;
      const ssize_t count = ::recv(socket_.get(), &byte, 1, MSG_DONTWAIT);
      if (count < 0 && errno == EAGAIN) {
        return readable.then([this]() { return readReply(); });
      }
      if (count <= 0) {
        return false;
      }
      if (byte == '\n') {
        return reply_.rfind("OK ", 0) == 0;
      }
      reply_.push_back(byte);
    }
    return false;
  }

  kj::Promise<int> pumpOutput() {
    auto readable = observer_.whenBecomesReadable();
    const ssize_t count = ::recv(socket_.get(), output_.data(), output_.size(), MSG_DONTWAIT);
    if (count < 0 && errno == EAGAIN) {
      return readable.then([this]() { return pumpOutput(); });
    }
    if (count <= 0) {
      // It sends no more. It may still listen, as long as there is something to send.
      pollfd end = {socket_.get(), 0, 0};
      const bool isClosed = ::poll(&end, 1, 0) == 1 && (end.revents & (POLLHUP | POLLERR)) != 0;
      if (count < 0 || isClosed || inputIsOver_) {
        return 0;
      }
      return readable.then([this]() { return pumpOutput(); });
    }
    begin_ = 0;
    end_ = static_cast<std::size_t>(count);
    return writeOut();
  }

  kj::Promise<int> writeOut() {
    if (begin_ == end_) {
      return kj::evalLater([this]() { return pumpOutput(); });
    }
    return stdout_.whenReady().then([this]() -> kj::Promise<int> {
      const ssize_t count =
          ::write(STDOUT_FILENO, output_.data() + begin_, std::min(end_ - begin_, ReadyFd::kChunkBytes));
      if (count < 0 && errno != EINTR && errno != EAGAIN) {
        return errno;
      }
      begin_ += count < 0 ? 0 : static_cast<std::size_t>(count);
      return writeOut();
    });
  }

  kj::Promise<void> pumpInput() {
    return stdin_.whenReady().then([this]() -> kj::Promise<void> {
      char bytes[ReadyFd::kChunkBytes];
      const ssize_t count = ::read(STDIN_FILENO, bytes, sizeof bytes);
      if (count < 0 && (errno == EINTR || errno == EAGAIN)) {
        return pumpInput();
      }
      if (count <= 0) {
        inputIsOver_ = true;
        ::shutdown(socket_.get(), SHUT_WR);
        return kj::READY_NOW;
      }
      input_.assign(bytes, static_cast<std::size_t>(count));
      return writeIn();
    });
  }

  kj::Promise<void> writeIn() {
    while (!input_.empty()) {
      auto writable = observer_.whenBecomesWritable();
      const ssize_t count = ::send(socket_.get(), input_.data(), input_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (count < 0 && errno == EAGAIN) {
        return writable.then([this]() { return writeIn(); });
      }
      if (count < 0) {
        inputIsOver_ = true;  // the guest takes no more; what it sends goes on
        return kj::READY_NOW;
      }
      input_.erase(0, static_cast<std::size_t>(count));
    }
    return pumpInput();
  }

  Fd socket_;
  kj::UnixEventPort::FdObserver observer_;
  ReadyFd stdin_;
  ReadyFd stdout_;
  std::string reply_;
  std::string input_;
  bool inputIsOver_ = false;
  std::vector<char> output_;
  std::size_t begin_ = 0, end_ = 0;
};

int vsock(const VsockOptions& options) {
  const std::uint32_t port = parseNumber("the port", "a number from 0 to 4294967295", options.port);
  auto io = kj::setupAsyncIo();
  const auto directories = openDirectories();
  VsockSession session(io, runtime::connectVsock(directories, runtime::vmName(options.name)));
  const bool isOpen = client::await(
      io, rpc::withDeadline(io.provider->getTimer(), kReplyLimit, "connecting to the guest", session.open(port)));
  if (!isOpen) {
    throw Error(ErrorCode::kFailedPrecondition,
                "nobody in the VM " + options.name + " accepts connections on vsock port " + std::to_string(port),
                "the guest may not be up yet", true);
  }
  const int failure = client::await(io, session.join());
  if (failure != 0) {
    throw systemError("writing to standard output", failure);
  }
  return kExitOk;
}

Usage usage() {
  const auto options = std::make_shared<VsockOptions>();
  return {
      .arguments =
          {liveVmArgument(options->name),
           {"port", {"PORT"}, "Port that somebody in the guest listens on", &options->port, Presence::kRequired}},
      .notes =
          "Standard input goes to the guest, what it sends to standard output; the end of standard input is told to "
          "it. Ends\n"
          "when the guest has closed the connection, with exit code 0. Programs may do the same with the socket that\n"
          "`vmmhost inspect` shows: connect, send \"CONNECT PORT\" and a line feed, read a line that begins with OK.",
      .carryOut = [options]() { return vsock(*options); },
  };
}

}  // namespace

const Verb kVsockVerb = {"vsock", "Connect to a port of the guest", usage};

}  // namespace vmmhost::cli
