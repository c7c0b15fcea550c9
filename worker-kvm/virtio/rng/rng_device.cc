#include "worker-kvm/virtio/rng/rng_device.h"

#include <asm/unistd.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <future>
#include <utility>

namespace vmmhost::kvm::virtio::rng {

namespace {

constexpr std::uint64_t kFeatureIndirectDesc = std::uint64_t{1} << 28;
constexpr std::uint64_t kFeatureEventIdx = std::uint64_t{1} << 29;
// Of a turn: others on the thread wait meanwhile.
constexpr unsigned kRequestsAtATime = 8;

// Behind everything that was posted before.
class Last final : public io::EventThread::Job {
 public:
  void run() noexcept override { done_.set_value(); }
  void wait() { done_.get_future().wait(); }

 private:
  std::promise<void> done_;
};

}  // namespace

RngDevice::RngDevice(io::EventThread& thread, RngOptions options) : thread_(thread), options_(std::move(options)) {
  chain_.readable.reserve(kQueueSize);
  chain_.writable.reserve(kQueueSize);
}

RngDevice::~RngDevice() {
  bool isNeeded = false;
  {
    const std::lock_guard lock(mutex_);
    isNeeded = isActive_ && !isStopping_;
  }
  if (isNeeded) {
    deactivate([] {});
  }
  Last last;
  thread_.post(last);
  last.wait();
}

confine::Rules RngDevice::rules(int source) {
  confine::Rules rules = {confine::call(__NR_getrandom)};
  if (source >= 0) {
    rules.push_back(confine::callOn(__NR_read, source));
  }
  return rules;
}

std::uint64_t RngDevice::features() const noexcept {
  return kFeatureIndirectDesc | kFeatureEventIdx;
}

void RngDevice::readConfig(std::uint64_t, std::span<std::uint8_t> data) noexcept {
  std::fill(data.begin(), data.end(), std::uint8_t{0});  // 5.4.4: there is none
}

void RngDevice::activate(Activation activation) noexcept {
  {
    const std::lock_guard lock(mutex_);
    activation_ = std::move(activation);
    isActive_ = true;
    isBegun_ = false;
  }
  thread_.post(orders_);
}

void RngDevice::deactivate(std::function<void()> done) noexcept {
  {
    const std::lock_guard lock(mutex_);
    done_ = std::move(done);
    isStopping_ = true;
  }
  thread_.post(orders_);
}

void RngDevice::followOrders() noexcept {
  bool isStopping = false;
  bool begins = false;
  {
    const std::lock_guard lock(mutex_);
    isStopping = isStopping_;
    begins = isActive_ && !isStopping_ && !std::exchange(isBegun_, true);
    if (begins && !activation_.queues.empty()) {
      active_ = activation_.queues.front();
    }
  }
  if (isStopping) {
    stop();
  } else if (begins && active_) {
    thread_.watch(active_->notified, EPOLLIN | EPOLLET, kicked_);
    serve();
  }
}

void RngDevice::stop() noexcept {
  if (active_) {
    thread_.unwatch(active_->notified, kicked_);
    active_.reset();
  }
  Activation activation;  // ends here, where memory may be given back
  std::function<void()> done;
  {
    const std::lock_guard lock(mutex_);
    std::swap(activation, activation_);
    done = std::exchange(done_, nullptr);
    isActive_ = isStopping_ = false;
  }
  done();
}

void RngDevice::serve() noexcept {
  if (!active_ || active_->queue.isBroken()) {
    return;
  }
  Queue& queue = active_->queue;
  queue.disableNotifications();
  bool hasGiven = false;
  bool mayHaveMore = true;
  for (unsigned left = kRequestsAtATime; left != 0 && mayHaveMore; --left) {
    const Queue::Taken taken = queue.take(chain_);
    if (taken == Queue::Taken::kBroken) {
      interrupts_->deviceBroken("a chain of descriptors breaks the rules");
      mayHaveMore = false;
    } else if (taken == Queue::Taken::kChain) {
      queue.give(chain_.head, fill(chain_.writable));
      hasGiven = true;
    } else if (queue.enableNotifications()) {
      queue.disableNotifications();
    } else {
      mayHaveMore = false;
    }
  }
  if (mayHaveMore) {
    thread_.post(kicked_);
  }
  if (hasGiven && queue.needsInterrupt()) {
    interrupts_->queueUsed(active_->index);
  }
}

std::uint32_t RngDevice::fill(std::span<const iovec> segments) const noexcept {
  std::size_t filled = 0;
  for (const iovec& segment : segments) {
    auto* data = static_cast<std::uint8_t*>(segment.iov_base);
    std::size_t left = std::min(segment.iov_len, kMaxRequestBytes - filled);
    while (left != 0) {
      ssize_t got = options_.source ? ::read(options_.source.get(), data, left) : 0;
      if (got <= 0) {
        got = ::getrandom(data, left, 0);
      }
      if (got > 0) {
        data += got;
        left -= static_cast<std::size_t>(got);
        filled += static_cast<std::size_t>(got);
      } else if (errno != EINTR) {
        return static_cast<std::uint32_t>(filled);
      }
    }
  }
  return static_cast<std::uint32_t>(filled);
}

}  // namespace vmmhost::kvm::virtio::rng
