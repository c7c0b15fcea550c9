#include "worker-kvm/virtio/net/receiver.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include "worker-kvm/virtio/net/offloads.h"

namespace vmmhost::kvm::virtio::net {

namespace {

// Of all buffers held: with the spill, readv takes them (IOV_MAX is 1024).
constexpr std::size_t kMaxParts = 1000;
// An ordinary Ethernet frame with a VLAN tag.
constexpr std::uint64_t kSmallFrameBytes = sizeof(Header) + 1518;
// Buffers smaller than this cost more time in readv than copying to them takes (bench-net).
constexpr std::uint64_t kLargeBufferBytes = 2048;

}  // namespace

Receiver::Receiver(Shared& shared)
    : shared_(shared), spill_(std::make_unique_for_overwrite<std::uint8_t[]>(kMaxFrameBytes)) {
}

void Receiver::start(ActiveQueue queue, std::uint64_t features) {
  queue_ = std::move(queue);
  features_ = features;
  expectsLarge_ = false;
}

void Receiver::stop() noexcept {
  queue_.reset();
  buffers_.clear();
  parts_.clear();
  firstBuffer_ = firstPart_ = 0;
  heldBytes_ = 0;
  begunBytes_ = 0;
}

Turn Receiver::resume() noexcept {
  if (begunBytes_ != 0) {
    switch (finishBegun()) {
      case Gathered::kSome:
        return finishTurn(Turn::kIdle);
      case Gathered::kNone:
        return Turn::kBlocked;
      case Gathered::kBroken:
        return Turn::kBroken;
    }
  }
  return hasHeld() || queue_->queue.enableNotifications() ? Turn::kIdle : Turn::kBlocked;
}

void Receiver::dropBegun() noexcept {
  if (std::exchange(begunBytes_, 0) != 0) {
    drop();
  }
}

Turn Receiver::receive(int tap) noexcept {
  queue_->queue.disableNotifications();
  Gathered gathered = begunBytes_ != 0 ? finishBegun() : Gathered::kSome;
  std::uint64_t bytes = 0;
  for (unsigned frames = 0; frames < kFramesPerTurn && bytes < kBytesPerTurn; ++frames) {
    if (gathered == Gathered::kSome) {
      gathered = gather();
    }
    if (gathered != Gathered::kSome) {
      return gathered == Gathered::kNone ? finishTurn(Turn::kBlocked) : Turn::kBroken;
    }
    const ssize_t got = read(tap);
    if (got < 0) {
      if (errno == EINTR) {
        continue;
      }
      // EBADFD: the device was deleted. Nothing else is to be expected, and nothing better can be made of it.
      return finishTurn(errno == EAGAIN ? Turn::kIdle : Turn::kTapGone);
    }
    bytes += static_cast<std::uint64_t>(got);
    gathered = place(static_cast<std::size_t>(got));
  }
  return gathered == Gathered::kBroken ? Turn::kBroken : finishTurn(Turn::kMore);
}

Queue::Fetched Receiver::fetchBuffer() noexcept {
  const Queue::Fetched fetched = queue_->queue.fetch(chain_);
  if (fetched == Queue::Fetched::kChain) {
    if (chain_.writableBytes < sizeof(Header)) {
      return Queue::Fetched::kBroken;  // 5.1.6.3.1
    }
    buffers_.push_back({chain_.head, static_cast<std::uint16_t>(chain_.writable.size()), chain_.writableBytes});
    parts_.insert(parts_.end(), chain_.writable.begin(), chain_.writable.end());
    heldBytes_ += chain_.writableBytes;
  }
  return fetched;
}

Receiver::Gathered Receiver::gather() noexcept {
  // A queue has at most 256 descriptors, and so has a chain: there is room for one more.
  while (merges() ? heldBytes_ < wantedBytes() && parts_.size() - firstPart_ + queue_->queue.size() <= kMaxParts
                  : !hasHeld()) {
    switch (fetchBuffer()) {
      case Queue::Fetched::kBroken:
        return Gathered::kBroken;
      case Queue::Fetched::kNone:
        if (hasHeld()) {
          return Gathered::kSome;
        }
        if (!queue_->queue.enableNotifications()) {
          return Gathered::kNone;
        }
        break;
      case Queue::Fetched::kChain:
        break;
    }
  }
  return Gathered::kSome;
}

// Past the buffer that `placed` ends at.
void Receiver::advance(Placed& placed) const noexcept {
  const Buffer& buffer = buffers_[firstBuffer_ + placed.buffers];
  placed.bytes += buffer.bytes;
  placed.parts += buffer.parts;
  ++placed.buffers;
}

std::span<const iovec> Receiver::partsOf(const Placed& buffer) const noexcept {
  return std::span(parts_).subspan(firstPart_ + buffer.parts, buffers_[firstBuffer_ + buffer.buffers].parts);
}

ssize_t Receiver::read(int tap) noexcept {
  placed_ = {};
  if (!expectsLarge_ || buffers_[firstBuffer_].bytes < kLargeBufferBytes) {
    return ::read(tap, spill_.get(), kMaxFrameBytes);
  }
  while (firstBuffer_ + placed_.buffers < buffers_.size()) {
    advance(placed_);
  }
  parts_.push_back({spill_.get(), kMaxFrameBytes});
  const ssize_t got = ::readv(tap, parts_.data() + firstPart_, static_cast<int>(parts_.size() - firstPart_));
  parts_.pop_back();
  return got;
}

// What was read lies in the buffers up to `placed_`, and then in the spill.
Receiver::Gathered Receiver::place(std::size_t frameBytes) noexcept {
  const memory::Bytes header{reinterpret_cast<std::uint8_t*>(&header_), sizeof header_};
  if (placed_.buffers != 0) {
    copyFrom(partsOf({}), 0, header);
  } else {
    std::memcpy(header.data(), spill_.get(), header.size());
  }
  expectsLarge_ = merges() && frameBytes > kSmallFrameBytes;
  const std::uint64_t agreed = (features_ & ~kGuestOffloads) | shared_.receiveFeatures.load(std::memory_order_relaxed);
  if (frameBytes <= sizeof header_ || (!merges() && frameBytes > heldBytes_) || !shared_.linkUp() ||
      !admitReceived(header_, agreed)) {
    drop();
    return Gathered::kSome;
  }
  begunBytes_ = frameBytes;
  spillStart_ = placed_.bytes;
  return finishBegun();
}

Receiver::Gathered Receiver::finishBegun() noexcept {
  while (placed_.bytes < begunBytes_) {
    if (firstBuffer_ + placed_.buffers < buffers_.size()) {
      const std::uint64_t offset = placed_.bytes - spillStart_;
      copyTo(partsOf(placed_), 0, {spill_.get() + offset, begunBytes_ - placed_.bytes});
      advance(placed_);
      continue;
    }
    // A driver that has nothing else to offer would wait for us, and we for it.
    if (placed_.buffers >= queue_->queue.size() || placed_.parts + queue_->queue.size() > kMaxParts) {
      dropBegun();
      return Gathered::kSome;
    }
    switch (fetchBuffer()) {
      case Queue::Fetched::kBroken:
        return Gathered::kBroken;
      case Queue::Fetched::kNone:
        if (!queue_->queue.enableNotifications()) {
          return Gathered::kNone;
        }
        break;
      case Queue::Fetched::kChain:
        break;
    }
  }
  deliver(std::exchange(begunBytes_, 0));
  return Gathered::kSome;
}

void Receiver::deliver(std::size_t frameBytes) noexcept {
  const auto first = partsOf({});
  used_.clear();
  for (std::size_t rest = frameBytes; rest > 0; ++firstBuffer_) {
    const Buffer& buffer = buffers_[firstBuffer_];
    const auto bytes = static_cast<std::uint32_t>(std::min<std::uint64_t>(rest, buffer.bytes));
    used_.push_back({buffer.head, bytes});
    rest -= bytes;
    firstPart_ += buffer.parts;
    heldBytes_ -= buffer.bytes;
  }
  header_.numBuffers = static_cast<std::uint16_t>(used_.size());
  copyTo(first, 0, {reinterpret_cast<const std::uint8_t*>(&header_), sizeof header_});
  queue_->queue.publishUsed(used_);
  if (!hasHeld() || firstPart_ > kMaxParts) {
    buffers_.erase(buffers_.begin(), buffers_.begin() + static_cast<std::ptrdiff_t>(firstBuffer_));
    parts_.erase(parts_.begin(), parts_.begin() + static_cast<std::ptrdiff_t>(firstPart_));
    firstBuffer_ = firstPart_ = 0;
  }
  count(shared_.counters.receivedFrames);
  count(shared_.counters.receivedBytes, frameBytes - sizeof(Header));
}

Turn Receiver::finishTurn(Turn turn) noexcept {
  if (queue_->queue.needsInterrupt()) {
    shared_.interrupts->queueUsed(queue_->index);
  }
  return turn;
}

}  // namespace vmmhost::kvm::virtio::net
