// Work that other threads have the control thread do, because only its filter allows the requests.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

#include "worker-kvm/threads/wake.h"

namespace vmmhost::kvm::threads {

class ControlCalls {
 public:
  // Made by the control thread. `wake` is signalled when there is something to run; outlives this.
  explicit ControlCalls(const Wake& wake) : wake_(wake), controlThread_(std::this_thread::get_id()) {}

  // Runs `work`, which throws nothing, on the control thread and waits for it. Needs no memory. The control thread
  // itself runs it at once. False if it was not run because the machine ends.
  template <typename Work>
  bool call(Work&& work) noexcept {
    if (std::this_thread::get_id() == controlThread_) {
      work();
      return true;
    }
    Waiting waiting;
    waiting.run = [](void* context) { (*static_cast<std::remove_reference_t<Work>*>(context))(); };
    waiting.context = &work;
    return enqueue(waiting);
  }

  // Control thread: runs what waits. Who waits is a virtual CPU, so that there is one for each at most.
  void runWaiting() noexcept;
  // Control thread: nothing is run any more; whoever waits goes on.
  void end() noexcept;

 private:
  struct Waiting {
    void (*run)(void*) = nullptr;
    void* context = nullptr;
    Waiting* next = nullptr;
    bool isDone = false;
    bool wasRun = false;
  };
  bool enqueue(Waiting& waiting) noexcept;

  const Wake& wake_;
  const std::thread::id controlThread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Waiting* first_ = nullptr;
  Waiting** last_ = &first_;
  bool hasEnded_ = false;
};

}  // namespace vmmhost::kvm::threads
