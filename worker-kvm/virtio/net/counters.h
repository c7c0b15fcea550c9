// What a network device counts. Written by its threads, read by any.
#pragma once

#include <atomic>
#include <cstdint>

namespace vmmhost::kvm::virtio::net {

struct Counters {
  std::atomic<std::uint64_t> receivedFrames = 0;  // by the driver
  std::atomic<std::uint64_t> receivedBytes = 0;   // without headers
  std::atomic<std::uint64_t> receiveDropped = 0;  // too large for the driver's buffers, or not agreed to; link down
  std::atomic<std::uint64_t> transmittedFrames = 0;
  std::atomic<std::uint64_t> transmittedBytes = 0;
  std::atomic<std::uint64_t> transmitDropped = 0;  // malformed, not agreed to or refused by the TAP; link down
};

inline void count(std::atomic<std::uint64_t>& counter, std::uint64_t more = 1) noexcept {
  counter.fetch_add(more, std::memory_order_relaxed);
}

}  // namespace vmmhost::kvm::virtio::net
