// The thread that reads boot files into guest memory anew when the machine is reset: how long that takes is up to the
// files, and the control thread answers meanwhile.
#pragma once

#include <linux/filter.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "worker-kvm/boot/load.h"
#include "worker-kvm/threads/thread.h"
#include "worker-kvm/threads/wake.h"

namespace vmmhost::kvm::vm {

// By the control thread, all of it.
class Loader {
 public:
  // `wake` is signalled when a transfer is done. Outlives this.
  explicit Loader(const threads::Wake& wake) : wake_(wake) {}
  ~Loader();  // ends a transfer half-way
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  // Starts the thread, whose seccomp filter is `filter` (empty: none). Throws Error.
  void start(std::vector<sock_filter> filter);
  // Returns once the thread runs under its filter.
  void awaitFilter();
  // Carries out load.transfer(); `load` stays until isDone().
  void begin(boot::Load& load);
  // Nothing is being transferred.
  bool isDone() const;

 private:
  void threadMain(const std::vector<sock_filter>& filter);

  const threads::Wake& wake_;
  std::atomic<bool> isUnwanted_ = false;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool isStarted_ = false;
  bool isEnding_ = false;
  boot::Load* load_ = nullptr;  // null: nothing to do
  std::unique_ptr<threads::Thread> thread_;
};

}  // namespace vmmhost::kvm::vm
