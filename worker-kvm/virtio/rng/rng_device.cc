#include "worker-kvm/virtio/rng/rng_device.h"

#include <asm/unistd.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "worker-kvm/virtio/features.h"

namespace vmmhost::kvm::virtio::rng {

namespace {

// Of a turn: others on the thread wait meanwhile.
constexpr unsigned kRequestsAtATime = 8;

}  // namespace

RngDevice::RngDevice(io::EventThread& thread, RngOptions options)
    : options_(std::move(options)), thread_(*this, thread) {
  chain_.readable.reserve(kQueueSize);
  chain_.writable.reserve(kQueueSize);
}

confine::Rules RngDevice::rules(int source) {
  confine::Rules rules = {confine::call(__NR_getrandom)};
  if (source >= 0) {
    rules.push_back(confine::callOn(__NR_read, source));
  }
  return rules;
}

std::uint64_t RngDevice::features() const noexcept {
  return kIndirectDesc | kEventIdx;
}

void RngDevice::readConfig(std::uint64_t, std::span<std::uint8_t> data) noexcept {
  std::fill(data.begin(), data.end(), std::uint8_t{0});  // 5.4.4: there is none
}

void RngDevice::start(Activation activation) noexcept {
  active_ = activation.moveQueue(0);
  if (active_) {
    thread_.events().watch(active_->notified, EPOLLIN | EPOLLET, kicked_);
    serve();
  }
}

bool RngDevice::stop() noexcept {
  if (active_) {
    thread_.events().unwatch(active_->notified, kicked_);
    active_.reset();
  }
  return true;
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
    const Queue::Fetched fetched = queue.fetch(chain_);
    if (fetched == Queue::Fetched::kBroken) {
      interrupts_->deviceBroken("a chain of descriptors breaks the rules");
      mayHaveMore = false;
    } else if (fetched == Queue::Fetched::kChain) {
      queue.publishUsed(chain_.head, fill(chain_.writable));
      hasGiven = true;
    } else if (queue.enableNotifications()) {
      queue.disableNotifications();
    } else {
      mayHaveMore = false;
    }
  }
  if (mayHaveMore) {
    thread_.events().post(kicked_);
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
