#include "worker-kvm/vm/loader.h"

#include <cstdlib>
#include <utility>

#include "vmmhost/seccomp.h"

namespace vmmhost::kvm::vm {

Loader::~Loader() {
  isUnwanted_.store(true);
  {
    const std::lock_guard lock(mutex_);
    isEnding_ = true;
  }
  changed_.notify_all();
  thread_.reset();
}

void Loader::start(std::vector<sock_filter> filter) {
  thread_ = std::make_unique<threads::Thread>("loader", [this, filter = std::move(filter)] { threadMain(filter); });
}

void Loader::awaitFilter() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return isStarted_; });
}

void Loader::begin(boot::Load& load) {
  {
    const std::lock_guard lock(mutex_);
    load_ = &load;
  }
  changed_.notify_all();
}

bool Loader::isDone() const {
  const std::lock_guard lock(mutex_);
  return load_ == nullptr;
}

// Beside reading files and writing to wake_ the thread's filter has what the heap needs, and no more.
void Loader::threadMain(const std::vector<sock_filter>& filter) {
  if (!filter.empty() && seccomp::install(filter, false) != 0) {
    std::abort();
  }
  std::unique_lock lock(mutex_);
  isStarted_ = true;
  changed_.notify_all();
  while (true) {
    changed_.wait(lock, [this] { return isEnding_ || load_ != nullptr; });
    if (isEnding_) {
      return;
    }
    boot::Load& load = *load_;
    lock.unlock();
    load.transfer(isUnwanted_);
    lock.lock();
    load_ = nullptr;
    wake_.signal();
  }
}

}  // namespace vmmhost::kvm::vm
