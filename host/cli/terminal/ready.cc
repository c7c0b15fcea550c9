#include "host/cli/terminal/ready.h"

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>

#include "vmmhost/error.h"

namespace vmmhost::cli {

namespace {

bool canBeWatched(int fd) {
  const Fd probe(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  return ::epoll_ctl(probe.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

// Without those that whoever started this process wants ignored: nohup, or a shell that starts it in the background.
// A signal that is blocked would be seen all the same.
sigset_t watchedSignals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGCONT, SIGWINCH}) {
    struct sigaction action {};
    if (::sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) {
      ::sigaddset(&set, signal);
    }
  }
  return set;
}

}  // namespace

ReadyFd::ReadyFd(kj::AsyncIoContext& io, int fd, Direction direction) : fd_(fd), direction_(direction) {
  if (canBeWatched(fd)) {
    observer_ = kj::heap<kj::UnixEventPort::FdObserver>(io.unixEventPort, fd,
                                                        direction == Direction::kRead
                                                            ? kj::UnixEventPort::FdObserver::OBSERVE_READ
                                                            : kj::UnixEventPort::FdObserver::OBSERVE_WRITE);
  }
}

kj::Promise<void> ReadyFd::whenReady() {
  KJ_IF_MAYBE (observer, observer_) {
    pollfd now{fd_, static_cast<short>(direction_ == Direction::kRead ? POLLIN : POLLOUT), 0};
    if (::poll(&now, 1, 0) == 0) {
      // Nothing runs between the look and the wait: an edge in between is still in epoll's list.
      return direction_ == Direction::kRead ? (*observer)->whenBecomesReadable() : (*observer)->whenBecomesWritable();
    }
  }
  return kj::evalLater([]() {});  // other work of the loop gets its turn
}

kj::Promise<void> ReadyFd::whenMoreCame() {
  KJ_IF_MAYBE (observer, observer_) {
    return (*observer)->whenBecomesReadable();
  }
  return kj::NEVER_DONE;
}

SignalSource::SignalSource(kj::AsyncIoContext& io) {
  const sigset_t set = watchedSignals();
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  fd_.reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd_) {
    throw systemError("making a signal descriptor", errno);
  }
  observer_ =
      kj::heap<kj::UnixEventPort::FdObserver>(io.unixEventPort, fd_.get(), kj::UnixEventPort::FdObserver::OBSERVE_READ);
}

SignalSource::~SignalSource() {
  const sigset_t set = watchedSignals();
  ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
}

kj::Promise<int> SignalSource::next() {
  signalfd_siginfo info;
  if (::read(fd_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    return static_cast<int>(info.ssi_signo);
  }
  return observer_->whenBecomesReadable().then([this]() { return next(); });
}

}  // namespace vmmhost::cli
