// How much each side of a connection may send (virtio 1.2, 5.10.6.3). Free-running counters of 32 bits, which wrap.
#pragma once

#include <cstdint>

#include "worker-kvm/virtio/vsock/packet.h"

namespace vmmhost::kvm::virtio::vsock {

// What we let the guest send.
class OwnCredit {
 public:
  explicit OwnCredit(std::uint32_t allocation) noexcept : allocation_(allocation) {}

  // The guest sent this much. False: more than it may; nothing is counted then.
  bool receive(std::uint32_t bytes) noexcept {
    if (bytes > allocation_ - (received_ - forwarded_)) {
      return false;
    }
    received_ += bytes;
    return true;
  }
  // That much of it is gone on its way, and there is room for as much again.
  void forward(std::uint32_t bytes) noexcept { forwarded_ += bytes; }

  void stamp(Header& header) noexcept {
    header.bufferAllocation = allocation_;
    header.forwardCount = forwarded_;
    told_ = forwarded_;
  }
  // The guest should be told, before it comes to a stop for want of credit.
  bool wantsUpdate() const noexcept { return forwarded_ - told_ >= (allocation_ + 1) / 2; }
  std::uint32_t allocation() const noexcept { return allocation_; }

 private:
  std::uint32_t allocation_;
  std::uint32_t received_ = 0;
  std::uint32_t forwarded_ = 0;
  std::uint32_t told_ = 0;  // forwarded_ as the guest knows it
};

// What the guest lets us send.
class PeerCredit {
 public:
  // As a packet of the guest has it. False: it claims to have had more than was sent.
  bool update(const Header& header) noexcept {
    allocation_ = header.bufferAllocation;
    const std::uint32_t ahead = header.forwardCount - forwarded_;
    if (ahead <= sent_ - forwarded_) {
      forwarded_ = header.forwardCount;
      return true;
    }
    // Two threads of a guest may overtake each other: a count of before is old news.
    return forwarded_ - header.forwardCount <= kOldNews;
  }
  std::uint32_t available() const noexcept {
    const std::uint32_t underWay = sent_ - forwarded_;
    return allocation_ > underWay ? allocation_ - underWay : 0;
  }
  void send(std::uint32_t bytes) noexcept { sent_ += bytes; }

 private:
  static constexpr std::uint32_t kOldNews = std::uint32_t{1} << 30;

  std::uint32_t allocation_ = 0;
  std::uint32_t sent_ = 0;
  std::uint32_t forwarded_ = 0;
};

}  // namespace vmmhost::kvm::virtio::vsock
