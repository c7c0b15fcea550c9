// Hands work from any thread to the thread that runs a KJ event loop.
#pragma once

#include <kj/async-io.h>
#include <kj/async-unix.h>

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "vmmhost/fd.h"

namespace vmmhost {

// A queue of closures with an eventfd, instead of kj::Executor (decision: ThreadSanitizer cannot see through KJ's
// uninstrumented locks). Made and destroyed on the loop's thread; post() from any thread.
class Mailbox {
 public:
  // `port` is the loop's event port (kj::AsyncIoContext::unixEventPort).
  explicit Mailbox(kj::UnixEventPort& port);
  ~Mailbox();
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  // Runs `work` on the loop's thread, in the order of posting. Never blocks. May be called while the mailbox is
  // being destroyed only if the caller holds a Sender.
  void post(std::function<void()> work);

  // A handle that other threads may keep longer than the mailbox lives: posts after its end are dropped.
  class Sender {
   public:
    void post(std::function<void()> work) const;

   private:
    friend class Mailbox;
    struct Queue;
    explicit Sender(std::shared_ptr<Queue> queue) : queue_(std::move(queue)) {}
    std::shared_ptr<Queue> queue_;
  };
  Sender sender() const { return Sender(queue_); }

 private:
  static std::shared_ptr<Sender::Queue> makeQueue();
  kj::Promise<void> drain();

  std::shared_ptr<Sender::Queue> queue_;
  kj::UnixEventPort::FdObserver observer_;
  kj::Promise<void> task_;
};

}  // namespace vmmhost
