// Takes in those who connect to a listening socket of the runtime folder: only this user and root, a few per turn of
// the event loop, and nobody while there is no room for more.
#pragma once

#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <sys/types.h>

#include <functional>
#include <string>

#include "host/base/log.h"
#include "vmmhost/fd.h"

namespace vmmhost::runtime {

// Belongs to the thread of its event loop.
class Acceptor {
 public:
  // Owns a client's non-blocking socket from then on. `process` connected; 0 if it is in another PID namespace.
  using Take = std::function<void(Fd socket, pid_t process)>;
  using HasRoom = std::function<bool()>;

  // The listener does not block. `subject` is that of what it says to the log. Nobody is accepted before start().
  Acceptor(kj::AsyncIoContext& io, Fd listener, Log& log, std::string subject);
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  // Once. While hasRoom says no, clients wait to be accepted; roomMade() has it asked again. Neither may destroy this.
  void start(
      Take take, HasRoom hasRoom = [] { return true; });
  void roomMade();

 private:
  kj::Promise<void> acceptLoop();
  kj::Maybe<kj::Duration> acceptSome();  // null: nobody waits; else how long to wait before the next

  kj::AsyncIoContext& io_;
  Fd listener_;
  Log& log_;
  std::string subject_;
  kj::UnixEventPort::FdObserver observer_;
  Take take_;
  HasRoom hasRoom_;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> roomMade_;  // the accepting waits for it
  kj::Promise<void> accepting_ = nullptr;
};

}  // namespace vmmhost::runtime
