#include "worker-kvm/virtio/net/transmitter.h"

#include <cerrno>
#include <utility>

#include "worker-kvm/virtio/net/offloads.h"

namespace vmmhost::kvm::virtio::net {

void Transmitter::start(ActiveQueue queue, std::uint64_t features) {
  parts_.reserve(std::size_t{queue.queue.size()} + 1);
  queue_ = std::move(queue);
  features_ = features;
}

Turn Transmitter::transmit(int tap) noexcept {
  Queue& queue = queue_->queue;
  queue.disableNotifications();
  std::uint64_t bytes = 0;
  for (unsigned frames = 0; frames < kFramesPerTurn && bytes < kBytesPerTurn;) {
    switch (queue.fetch(chain_)) {
      case Queue::Fetched::kNone:
        if (queue.enableNotifications()) {
          ++frames;  // a driver that takes back what it offered gains nothing by it
          continue;
        }
        finishTurn();
        return Turn::kIdle;
      case Queue::Fetched::kBroken:
        return Turn::kBroken;
      case Queue::Fetched::kChain:
        break;
    }
    const Sent sent = send(tap);
    if (sent == Sent::kFull) {
      queue.unfetch();
      finishTurn();
      return Turn::kBlocked;
    }
    queue.publishUsed(chain_.head, 0);
    if (sent == Sent::kGone) {
      finishTurn();
      return Turn::kTapGone;
    }
    ++frames;
    bytes += chain_.readableBytes;
  }
  finishTurn();
  return Turn::kMore;
}

Transmitter::Sent Transmitter::send(int tap) noexcept {
  Header header;
  if (chain_.readableBytes <= sizeof header || chain_.readableBytes > kMaxFrameBytes) {
    count(shared_.counters.transmitDropped);
    return Sent::kDone;
  }
  // The TAP gets this copy: the driver cannot change it any more.
  copyFrom(chain_.readable, 0, {reinterpret_cast<std::uint8_t*>(&header), sizeof header});
  if (tap < 0 || !shared_.linkUp() || !admitTransmitted(header, features_)) {
    count(shared_.counters.transmitDropped);
    return Sent::kDone;
  }
  parts_.clear();
  parts_.push_back({&header, sizeof header});
  std::size_t skip = sizeof header;
  for (const iovec& part : chain_.readable) {
    if (part.iov_len > skip) {
      parts_.push_back({static_cast<std::uint8_t*>(part.iov_base) + skip, part.iov_len - skip});
      skip = 0;
    } else {
      skip -= part.iov_len;
    }
  }
  ssize_t written = 0;
  do {
    written = ::writev(tap, parts_.data(), static_cast<int>(parts_.size()));
  } while (written < 0 && errno == EINTR);
  if (written < 0) {
    if (errno == EAGAIN) {
      return Sent::kFull;
    }
    // EINVAL and others: the TAP does not take this frame. EIO: the interface is down.
    count(shared_.counters.transmitDropped);
    return errno == EBADFD ? Sent::kGone : Sent::kDone;
  }
  count(shared_.counters.transmittedFrames);
  count(shared_.counters.transmittedBytes, chain_.readableBytes - sizeof header);
  return Sent::kDone;
}

void Transmitter::finishTurn() noexcept {
  if (queue_->queue.needsInterrupt()) {
    shared_.interrupts->queueUsed(queue_->index);
  }
}

}  // namespace vmmhost::kvm::virtio::net
