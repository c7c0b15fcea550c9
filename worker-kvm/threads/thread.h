// A named thread with a small stack, joined when its owner goes.
#pragma once

#include <pthread.h>

#include <functional>
#include <memory>
#include <string>

namespace vmmhost::kvm::threads {

class Thread {
 public:
  // `name`: at most 15 bytes, as the kernel keeps it. All signals are blocked in it but kKickSignal, whose handler does
  // nothing: it ends a system call. Throws Error if the system has no thread for us.
  Thread(std::string name, std::function<void()> body);
  ~Thread();  // joins
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;

  // Ends a blocking system call of the thread with EINTR. The thread must not have been joined.
  void kick() noexcept;

 private:
  struct Start;
  static void* enter(void* argument);

  std::unique_ptr<Start> start_;
  pthread_t thread_{};
};

}  // namespace vmmhost::kvm::threads
