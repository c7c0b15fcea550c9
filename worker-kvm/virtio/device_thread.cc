#include "worker-kvm/virtio/device_thread.h"

#include <atomic>
#include <cassert>
#include <utility>

#include "worker-kvm/io/call_job.h"

namespace vmmhost::kvm::virtio {

DeviceThread::DeviceThread(Server& server, std::string name, confine::Rules rules)
    : server_(server), own_(std::make_unique<io::EventThread>(std::move(name), std::move(rules))), thread_(*own_) {
}

DeviceThread::DeviceThread(Server& server, io::EventThread& thread) : server_(server), thread_(thread) {
}

DeviceThread::~DeviceThread() {
  end();
}

void DeviceThread::activate(Activation activation) noexcept {
  {
    const std::lock_guard lock(mutex_);
    assert(state_ == State::kInactive);
    state_ = State::kActive;
    activation_ = std::move(activation);
  }
  thread_.post(*this);
}

void DeviceThread::deactivate(std::function<void()> done) noexcept {
  {
    const std::lock_guard lock(mutex_);
    assert(state_ == State::kActive);
    state_ = State::kStopping;
    done_ = std::move(done);
  }
  thread_.post(*this);
}

void DeviceThread::run() noexcept {
  std::optional<Activation> activation;
  bool leaves = false;
  {
    const std::lock_guard lock(mutex_);
    activation = std::exchange(activation_, std::nullopt);
    leaves = state_ == State::kStopping;
  }
  if (leaves) {
    // Of a driver that came and went at once nothing is begun.
    if (!isStarted_ || (!std::exchange(isStopping_, true) && server_.stop())) {
      stopped();
    }
  } else if (activation) {
    isStarted_ = true;
    server_.start(std::move(*activation));
  }
}

void DeviceThread::stopped() noexcept {
  isStarted_ = isStopping_ = false;
  std::function<void()> done;
  {
    const std::lock_guard lock(mutex_);
    done = std::exchange(done_, nullptr);
    state_ = State::kInactive;
    inactive_.notify_all();
  }
  done();
}

void DeviceThread::beginEnd() noexcept {
  bool isActive = false;
  {
    const std::lock_guard lock(mutex_);
    isActive = state_ == State::kActive;  // which only this thread changes
  }
  if (isActive) {
    deactivate([] {});
  }
}

void DeviceThread::end() noexcept {
  beginEnd();
  {
    std::unique_lock lock(mutex_);
    inactive_.wait(lock, [this] { return state_ == State::kInactive; });
  }
  if (!own_) {
    io::runOn(thread_, [] {});  // behind what the server had posted; a thread of its own carries that out as it ends
  }
}

std::function<void()> afterCalls(std::size_t times, std::function<void()> done) {
  struct Shared {
    std::atomic<std::size_t> left;
    std::function<void()> done;
  };
  auto shared = std::make_shared<Shared>();
  shared->left = times;
  shared->done = std::move(done);
  return [shared = std::move(shared)] {
    if (shared->left.fetch_sub(1) == 1) {
      shared->done();
    }
  };
}

}  // namespace vmmhost::kvm::virtio
