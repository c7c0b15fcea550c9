#include "host/cli/terminal/console_session.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "host/cli/base/output.h"

namespace vmmhost::cli {

namespace {

constexpr std::size_t kOutputBytes = 65536;
constexpr char kMenuKey = 0x1d;  // ^]

}  // namespace

ConsoleSession::ConsoleSession(kj::AsyncIoContext& io, Fd stream, Options options)
    : stream_(std::move(stream)),
      options_(std::move(options)),
      streamReady_(io.unixEventPort, stream_.get(), kj::UnixEventPort::FdObserver::OBSERVE_READ_WRITE),
      output_(io, options_.outputFd, ReadyFd::Direction::kWrite),
      outBuffer_(kOutputBytes),
      events_(kj::newPromiseAndFulfiller<SessionEvent>()) {
  if (options_.readInput) {
    input_ = kj::heap<ReadyFd>(io, STDIN_FILENO, ReadyFd::Direction::kRead);
  }
}

void ConsoleSession::event(SessionEvent::Kind kind) {
  if (events_.fulfiller->isWaiting()) {
    events_.fulfiller->fulfill({kind});
  }
}

kj::Promise<void> ConsoleSession::pumpOutput() {
  const ssize_t count = ::recv(stream_.get(), outBuffer_.data(), outBuffer_.size(), MSG_DONTWAIT);
  if (count < 0 && errno == EAGAIN) {
    return streamReady_.whenBecomesReadable().then([this]() { return pumpOutput(); });
  }
  if (count <= 0) {
    return kj::READY_NOW;  // the supervisor has closed it, or is gone
  }
  outBegin_ = 0;
  outEnd_ = static_cast<std::size_t>(count);
  return writeOut();
}

kj::Promise<void> ConsoleSession::writeOut() {
  if (outBegin_ == outEnd_) {
    return pumpOutput();
  }
  return output_.whenReady().then([this]() -> kj::Promise<void> {
    if (options_.mayRead) {
      options_.mayRead();  // a guest that draws on the terminal does not wait for a key
    }
    const std::size_t wanted = std::min(outEnd_ - outBegin_, ReadyFd::kChunkBytes);
    const ssize_t count = ::write(output_.get(), outBuffer_.data() + outBegin_, wanted);
    if (count < 0 && errno != EINTR && errno != EAGAIN) {
      outputError_ = errno;
      event(SessionEvent::Kind::kOutputGone);
      return kj::READY_NOW;
    }
    outBegin_ += count < 0 ? 0 : static_cast<std::size_t>(count);
    return writeOut();
  });
}

kj::Promise<SessionEvent> ConsoleSession::events() {
  if (input_ == nullptr) {
    return kj::mv(events_.promise);
  }
  return events_.promise.exclusiveJoin(pumpInput().then([]() -> kj::Promise<SessionEvent> { return kj::NEVER_DONE; }));
}

kj::Promise<void> ConsoleSession::pumpInput() {
  KJ_IF_MAYBE (input, input_) {
    return (*input)->whenReady().then([this, source = input->get()]() -> kj::Promise<void> {
      if (options_.mayRead && !options_.mayRead()) {
        // Nobody tells when the job comes to the foreground; what is typed then does.
        return source->whenMoreCame().then([this]() { return pumpInput(); });
      }
      char bytes[ReadyFd::kChunkBytes];
      const ssize_t count = ::read(STDIN_FILENO, bytes, sizeof bytes);
      if (count < 0 && (errno == EINTR || errno == EAGAIN)) {
        return pumpInput();
      }
      if (count <= 0) {
        return kj::READY_NOW;  // the end of the input is not the end of the VM
      }
      takeKeys(bytes, static_cast<std::size_t>(count));
      return writeIn();
    });
  }
  return kj::READY_NOW;
}

void ConsoleSession::takeKeys(const char* bytes, std::size_t count) {
  inBuffer_.clear();
  inBegin_ = 0;
  for (std::size_t index = 0; index < count; ++index) {
    if (menuOpen_) {
      menuKey(bytes[index]);
    } else if (options_.menu && bytes[index] == kMenuKey) {
      menuOpen_ = true;
      noteBlock("\r\nvmmhost: [d]etach, [k]ill, [c]ancel? ");
    } else {
      inBuffer_.push_back(bytes[index]);
    }
  }
}

void ConsoleSession::menuKey(char key) {
  if (key != 'd' && key != 'k' && key != 'c' && key != kMenuKey) {
    return;
  }
  menuOpen_ = false;
  noteBlock(key == 'd' ? "detach\r\n" : key == 'k' ? "kill\r\n" : "cancel\r\n");
  if (key == 'd' || key == 'k') {
    event(key == 'd' ? SessionEvent::Kind::kDetach : SessionEvent::Kind::kKill);
  } else if (key == kMenuKey) {
    inBuffer_.push_back(kMenuKey);  // typed twice: meant for the guest
  }
}

kj::Promise<void> ConsoleSession::writeIn() {
  while (inBegin_ < inBuffer_.size()) {
    const ssize_t count =
        ::send(stream_.get(), inBuffer_.data() + inBegin_, inBuffer_.size() - inBegin_, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && errno == EAGAIN) {
      return streamReady_.whenBecomesWritable().then([this]() { return writeIn(); });
    }
    if (count < 0) {
      return kj::READY_NOW;  // the console is gone; its output's end says so
    }
    inBegin_ += static_cast<std::size_t>(count);
  }
  return pumpInput();
}

}  // namespace vmmhost::cli
