// Readiness of descriptors that were inherited, and must therefore stay in blocking mode.
#pragma once

#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <kj/common.h>

#include <cstddef>

#include "vmmhost/fd.h"

namespace vmmhost::cli {

// Tells when a read or write of a moderate size will not block. Descriptors that epoll cannot watch (regular files,
// /dev/null) are always ready. Belongs to the loop's thread; does not own the descriptor.
class ReadyFd {
 public:
  enum class Direction { kRead, kWrite };
  // A write of this size to a pipe that is ready does not block (PIPE_BUF).
  static constexpr std::size_t kChunkBytes = 4096;

  ReadyFd(kj::AsyncIoContext& io, int fd, Direction direction);

  int get() const { return fd_; }
  // Fulfilled when the descriptor is ready, at once if it is so now. One at a time.
  kj::Promise<void> whenReady();
  // Of one that is read: fulfilled when more came than there is now. Never, if it cannot be watched.
  kj::Promise<void> whenMoreCame();

 private:
  int fd_;
  Direction direction_;
  kj::Maybe<kj::Own<kj::UnixEventPort::FdObserver>> observer_;
};

// Signals of this process as events of the loop. They are blocked while it lives (in threads made from now on as
// well), so that no other action is taken on them.
class SignalSource {
 public:
  // SIGINT, SIGTERM, SIGHUP, SIGCONT and SIGWINCH, but for those that were ignored.
  explicit SignalSource(kj::AsyncIoContext& io);
  ~SignalSource();
  SignalSource(const SignalSource&) = delete;
  SignalSource& operator=(const SignalSource&) = delete;

  // The next one's number. One at a time.
  kj::Promise<int> next();

 private:
  Fd fd_;
  kj::Own<kj::UnixEventPort::FdObserver> observer_;
};

}  // namespace vmmhost::cli
