// Work for a device's thread whose owner has a function for it.
#pragma once

#include <functional>
#include <future>
#include <utility>

#include "worker-kvm/io/event_thread.h"

namespace vmmhost::kvm::io {

class CallJob final : public EventThread::Job {
 public:
  // `call` never throws.
  explicit CallJob(std::function<void()> call) : call_(std::move(call)) {}
  void run() noexcept override { call_(); }

 private:
  std::function<void()> call_;
};

// Runs `call` on `thread`, behind what was posted before, and waits for it. Where the thread has not started, and may
// never, nobody else is on it: the call is made here. By the thread that starts it.
inline void runOn(EventThread& thread, const std::function<void()>& call) {
  if (!thread.isStarted()) {
    call();
    return;
  }
  std::promise<void> done;
  auto isDone = done.get_future();
  CallJob job([&] {
    call();
    done.set_value();
  });
  thread.post(job);
  isDone.wait();
}

}  // namespace vmmhost::kvm::io
