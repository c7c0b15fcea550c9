#include "worker-kvm/threads/control_calls.h"

#include <utility>

namespace vmmhost::kvm::threads {

bool ControlCalls::enqueue(Waiting& waiting) noexcept {
  std::unique_lock lock(mutex_);
  if (hasEnded_) {
    return false;
  }
  *last_ = &waiting;
  last_ = &waiting.next;
  wake_.signal();
  changed_.wait(lock, [&waiting] { return waiting.isDone; });
  return waiting.wasRun;
}

void ControlCalls::runWaiting() noexcept {
  Waiting* list = nullptr;
  {
    const std::lock_guard lock(mutex_);
    list = std::exchange(first_, nullptr);
    last_ = &first_;
  }
  if (list == nullptr) {
    return;
  }
  for (const Waiting* waiting = list; waiting != nullptr; waiting = waiting->next) {
    waiting->run(waiting->context);
  }
  const std::lock_guard lock(mutex_);
  for (Waiting* waiting = list; waiting != nullptr;) {
    Waiting* const next = waiting->next;  // it goes when its owner is told
    waiting->wasRun = true;
    waiting->isDone = true;
    waiting = next;
  }
  changed_.notify_all();
}

void ControlCalls::end() noexcept {
  const std::lock_guard lock(mutex_);
  hasEnded_ = true;
  for (Waiting* waiting = std::exchange(first_, nullptr); waiting != nullptr;) {
    Waiting* const next = waiting->next;
    waiting->isDone = true;
    waiting = next;
  }
  last_ = &first_;
  changed_.notify_all();
}

}  // namespace vmmhost::kvm::threads
