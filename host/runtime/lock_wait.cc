#include "host/runtime/lock_wait.h"

#include <pthread.h>
#include <signal.h>

#include <cerrno>
#include <condition_variable>
#include <mutex>

#include "vmmhost/error.h"

namespace vmmhost::runtime {
namespace {

// The kernel waits for a lock without a limit, until a signal comes. So that no signal of the program is needed, a
// thread waits, and is cancelled: fcntl() is a cancellation point while it waits (pthreads(7)).
class Waiter {
 public:
  Waiter(int file, struct flock lock) : file_(file), lock_(lock) {
    sigset_t all;
    sigset_t before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = ::pthread_create(&thread_, nullptr, &Waiter::enter, this);
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (error != 0) {
      throw systemError("starting a thread that waits for a lock", error);
    }
  }
  ~Waiter() {
    ::pthread_cancel(thread_);
    ::pthread_join(thread_, nullptr);
  }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;

  // 0: has the lock; else an errno value, ETIMEDOUT for a wait that was too long.
  int within(std::chrono::milliseconds patience) {
    std::unique_lock guard(mutex_);
    return done_.wait_for(guard, patience, [this] { return isDone_; }) ? error_ : ETIMEDOUT;
  }

 private:
  // A cancelled thread leaves its frames without passing their ends, where AddressSanitizer takes back what it has
  // marked in them: this frame has no marks.
  __attribute__((no_sanitize("address"))) static void* enter(void* argument) {
    auto* const self = static_cast<Waiter*>(argument);
    int result;
    while ((result = ::fcntl(self->file_, F_OFD_SETLKW, &self->lock_)) != 0 && errno == EINTR) {
    }
    const int error = result == 0 ? 0 : errno;
    ::pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
    const std::lock_guard guard(self->mutex_);
    self->error_ = error;
    self->isDone_ = true;
    self->done_.notify_all();
    return nullptr;
  }

  const int file_;
  struct flock lock_;
  std::mutex mutex_;
  std::condition_variable done_;
  bool isDone_ = false;
  int error_ = 0;
  pthread_t thread_{};
};

}  // namespace

bool lockWithin(int file, struct flock lock, std::chrono::milliseconds patience) {
  int error = ::fcntl(file, F_OFD_SETLK, &lock) == 0 ? 0 : errno;
  if (error == EAGAIN || error == EACCES || error == EINTR) {
    Waiter waiter(file, lock);
    error = waiter.within(patience);
  }
  if (error != 0 && error != ETIMEDOUT) {
    throw systemError("locking an entry of the runtime folder", error);
  }
  return error == 0;
}

}  // namespace vmmhost::runtime
