#include "worker-kvm/virtio/net/pair.h"

#include <asm/unistd.h>

#include <utility>

namespace vmmhost::kvm::virtio::net {

namespace {

constexpr const char* kReceiveBroken = "net: the driver's receive queue is not what the specification asks for";
constexpr const char* kTransmitBroken = "net: the driver's transmit queue is not what the specification asks for";

confine::Rules rulesOf(const Shared& shared, std::uint16_t index, confine::Rules rules) {
  for (const Fd& tap : shared.taps) {
    rules.push_back(confine::callOn(__NR_read, tap.get()));
    rules.push_back(confine::callOn(__NR_readv, tap.get()));
  }
  if (index < shared.taps.size()) {
    rules.push_back(confine::callOn(__NR_writev, shared.taps[index].get()));
  }
  for (const int descriptor : shared.interrupts->descriptors()) {
    rules.push_back(confine::callOn(__NR_write, descriptor));
  }
  return rules;
}

}  // namespace

Pair::Pair(Shared& shared, std::uint16_t index, const std::string& threadName, confine::Rules rules,
           DeviceThread::Server& server)
    : shared_(shared),
      index_(index),
      receiver_(shared),
      transmitter_(shared),
      receiveNotified_([this](std::uint32_t) { buffersOffered(); }),
      transmitNotified_([this](std::uint32_t) { framesOffered(); }),
      transmitMore_([this] { transmit(); }),
      thread_(server, threadName, rulesOf(shared, index, std::move(rules))) {
  taps_.reserve(shared.taps.size());  // they do not move once they are watched, which is after the first post
  for (std::uint16_t tap = 0; tap < shared.taps.size(); ++tap) {
    taps_.emplace_back(*this, tap);
  }
}

void Pair::start(std::optional<ActiveQueue> receive, std::optional<ActiveQueue> transmit,
                 std::uint64_t features) noexcept {
  // Edges, for each notification is one: what was notified before is seen when the watch begins, and the counts need
  // not be read.
  if (receive) {
    receiver_.start(std::move(*receive), features);
    thread_.events().watch(receiver_.notified(), EPOLLIN | EPOLLET, receiveNotified_);
  }
  if (transmit) {
    transmitter_.start(std::move(*transmit), features);
    thread_.events().watch(transmitter_.notified(), EPOLLIN | EPOLLET, transmitNotified_);
    thread_.events().post(transmitMore_);
  }
  watchTaps();
}

void Pair::stop() noexcept {
  lacksBuffers_ = tapIsFull_ = isBroken_ = false;
  for (std::uint16_t tap = 0; tap < taps_.size(); ++tap) {
    watchTap(tap, 0);
  }
  if (receiver_.isStarted()) {
    thread_.events().unwatch(receiver_.notified(), receiveNotified_);
    receiver_.stop();
  }
  if (transmitter_.isStarted()) {
    thread_.events().unwatch(transmitter_.notified(), transmitNotified_);
    transmitter_.stop();
  }
}

void Pair::assignTaps() noexcept {
  if (index_ >= shared_.activePairs.load(std::memory_order_acquire)) {
    receiver_.dropBegun();  // 5.1.6.5.5.2: nothing is put on this queue any more
  }
  watchTaps();
}

void Pair::watchTap(std::uint16_t tap, std::uint32_t events) noexcept {
  Tap& watch = taps_[tap];
  if (watch.gone) {
    events = 0;
  }
  const int descriptor = shared_.taps[tap].get();
  if (events == watch.watched) {
    return;
  }
  if (events == 0) {
    thread_.events().unwatch(descriptor, watch);
  } else if (watch.watched == 0) {
    thread_.events().watch(descriptor, events, watch);
  } else {
    thread_.events().change(descriptor, events, watch);
  }
  watch.watched = events;
}

void Pair::watchTaps() noexcept {
  const std::uint16_t active = shared_.activePairs.load(std::memory_order_acquire);
  const bool reads = receiver_.isStarted() && index_ < active && !lacksBuffers_ && !isBroken_;
  for (std::uint16_t tap = 0; tap < taps_.size(); ++tap) {
    const bool isRead = reads && tap % active == index_;
    const bool isAwaited = tap == index_ && tapIsFull_ && !isBroken_;
    watchTap(tap, (isRead ? EPOLLIN : 0U) | (isAwaited ? EPOLLOUT : 0U));
  }
}

void Pair::tapReady(std::uint16_t tap, std::uint32_t events) noexcept {
  if ((events & EPOLLOUT) != 0 && tapIsFull_) {
    tapIsFull_ = false;
    watchTaps();
    transmit();
  }
  if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
    tapGone(tap);
  } else if ((taps_[tap].watched & events & EPOLLIN) != 0) {
    receiveFrom(tap);
  }
}

// All descriptors are queues of one device: the others hear of it by themselves.
void Pair::tapGone(std::uint16_t tap) noexcept {
  taps_[tap].gone = true;
  watchTap(tap, 0);
  if (shared_.tapThere.exchange(false) && shared_.linkWanted) {
    shared_.interrupts->configChanged();
  }
}

void Pair::receiveFrom(std::uint16_t tap) noexcept {
  switch (receiver_.receive(shared_.taps[tap].get())) {
    case Turn::kIdle:
    case Turn::kMore:  // it is still readable
      return;
    case Turn::kBlocked:
      lacksBuffers_ = true;
      watchTaps();
      return;
    case Turn::kTapGone:
      tapGone(tap);
      return;
    case Turn::kBroken:
      broken(kReceiveBroken);
      return;
  }
}

void Pair::buffersOffered() noexcept {
  if (!lacksBuffers_ || isBroken_) {
    return;
  }
  switch (receiver_.resume()) {
    case Turn::kBroken:
      broken(kReceiveBroken);
      return;
    case Turn::kBlocked:
      return;
    default:
      lacksBuffers_ = false;
      watchTaps();
      return;
  }
}

void Pair::framesOffered() noexcept {
  if (!tapIsFull_) {
    transmit();
  }
}

void Pair::transmit() noexcept {
  if (!transmitter_.isStarted() || isBroken_) {
    return;
  }
  switch (transmitter_.transmit(transmitTap())) {
    case Turn::kIdle:
      return;
    case Turn::kMore:
      thread_.events().post(transmitMore_);
      return;
    case Turn::kBlocked:
      tapIsFull_ = true;
      watchTaps();
      return;
    case Turn::kTapGone:
      tapGone(index_);
      thread_.events().post(transmitMore_);
      return;
    case Turn::kBroken:
      broken(kTransmitBroken);
      return;
  }
}

int Pair::transmitTap() const noexcept {
  return index_ < taps_.size() && !taps_[index_].gone ? shared_.taps[index_].get() : -1;
}

void Pair::broken(const char* reason) noexcept {
  isBroken_ = true;
  watchTaps();
  shared_.interrupts->deviceBroken(reason);
}

}  // namespace vmmhost::kvm::virtio::net
