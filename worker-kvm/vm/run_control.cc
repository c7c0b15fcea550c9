#include "worker-kvm/vm/run_control.h"

namespace vmmhost::kvm::vm {

void RunControl::setTarget(Target target) {
  const std::lock_guard lock(mutex_);
  target_ = target;
  mayRun_ = target == Target::kRun && !ended_;
  changed_.notify_all();
}

std::uint32_t RunControl::parkedCount() const {
  const std::lock_guard lock(mutex_);
  return parked_;
}

std::optional<EndReport> RunControl::ended() const {
  const std::lock_guard lock(mutex_);
  return ended_;
}

void RunControl::clearEnd() {
  const std::lock_guard lock(mutex_);
  ended_.reset();
  mayRun_ = target_ == Target::kRun;
}

bool RunControl::waitToRun() {
  std::unique_lock lock(mutex_);
  ++parked_;
  wake_.signal();
  changed_.wait(lock, [this] { return target_ == Target::kExit || mayRun_; });
  --parked_;
  return target_ != Target::kExit;
}

void RunControl::end(const EndReport& report) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (!ended_) {
      ended_ = report;
    }
    mayRun_ = false;
  }
  wake_.signal();
}

}  // namespace vmmhost::kvm::vm
