// A split virtqueue as a device sees it: a walk over guest memory, apart from any I/O.
// Source: virtio 1.2, 2.7 (split virtqueues), 2.7.5.3 (indirect descriptors), 2.7.10 (used buffer notification
// suppression with VIRTIO_F_EVENT_IDX).
#pragma once

#include <sys/uio.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "worker-kvm/memory/guest_memory.h"

namespace vmmhost::kvm::virtio {

inline constexpr std::uint16_t kMaxQueueSize = 1024;

// Where a driver has put a queue.
struct QueueLayout {
  std::uint16_t size = 0;  // a power of 2, at most kMaxQueueSize
  std::uint64_t descriptorTable = 0;
  std::uint64_t availableRing = 0;
  std::uint64_t usedRing = 0;
  bool eventIndex = false;  // VIRTIO_F_EVENT_IDX was agreed
  bool indirect = false;    // VIRTIO_F_INDIRECT_DESC was agreed
};

// One buffer of the driver: what the device may read, then what it may write, as the host's view of guest memory. The
// guest may change the bytes at any time.
struct Chain {
  std::uint16_t head = 0;
  std::vector<iovec> readable;
  std::vector<iovec> writable;
  std::uint64_t readableBytes = 0;
  std::uint64_t writableBytes = 0;
};

class Queue {
 public:
  // Nothing if the layout is not what the specification asks for or not entirely in guest memory. `memory` outlives the
  // queue.
  static std::optional<Queue> make(const memory::GuestMemory& memory, const QueueLayout& layout);

  // From one thread at a time.
  enum class Fetched : std::uint8_t {
    kNone,   // the driver has made nothing more available
    kChain,  // `chain` is the next available one
    kBroken  // the driver broke the rules: a loop, a chain beyond the queue, an address outside guest memory, more than
             // 2^32 bytes, more available than the queue holds. Nothing more can be fetched, the device needs a reset.
  };
  // Reuses the memory of `chain`.
  [[gnu::hot]] Fetched fetch(Chain& chain) noexcept;
  // The chain that begins at `head` is used, which the driver sees; the device wrote `writtenBytes` into it. In any
  // order.
  [[gnu::hot]] void publishUsed(std::uint16_t head, std::uint32_t writtenBytes) noexcept;
  // Several that the driver must see used together, as the parts of one frame (5.1.6.4). At most as many as were
  // fetched.
  struct Used {
    std::uint16_t head = 0;
    std::uint32_t writtenBytes = 0;
  };
  void publishUsed(std::span<const Used> chains) noexcept;
  // The same in two steps: the used ring has it, but the driver sees none of them before publish() writes the ring's
  // index.
  [[gnu::hot]] void addUsed(std::uint16_t head, std::uint32_t writtenBytes) noexcept;
  [[gnu::hot]] void publish() noexcept;
  // Makes the last chain the next available one again. Only right after fetch().
  void unfetch() noexcept { --nextAvailable_; }

  // True if the driver wants a notification of what was used since the last call. Call it after a batch of
  // publishUsed(), or after publish().
  [[gnu::hot]] bool needsInterrupt() noexcept;

  // Asks the driver to notify of what it makes available, and says whether something is available meanwhile: then go on
  // fetching. Without it, a driver need not notify.
  [[gnu::hot]] bool enableNotifications() noexcept;
  // Tells the driver that there is no need to notify: the device looks by itself.
  [[gnu::hot]] void disableNotifications() noexcept;

  bool isBroken() const noexcept { return broken_; }
  std::uint16_t size() const noexcept { return layout_.size; }

  // For snapshots: how far both sides have come. Nothing is under way, everything used is published.
  struct Position {
    std::uint16_t nextAvailable = 0;
    std::uint16_t nextUsed = 0;
  };
  Position position() const noexcept { return {nextAvailable_, nextUsed_}; }
  void setPosition(Position position) noexcept;

 private:
  Queue(const memory::GuestMemory& memory, const QueueLayout& layout, memory::Bytes descriptors,
        memory::Bytes available, memory::Bytes used);
  Fetched broken() noexcept;
  [[gnu::hot]] bool walk(Chain& chain) noexcept;  // from its head on

  const memory::GuestMemory* memory_;
  QueueLayout layout_;
  std::uint8_t* descriptors_;
  std::uint8_t* available_;
  std::uint8_t* used_;
  std::uint16_t nextAvailable_ = 0;
  std::uint16_t nextUsed_ = 0;
  std::uint16_t lastSignalled_ = 0;  // used index at the last interrupt decision
  bool signalledValid_ = false;
  bool broken_ = false;
};

// Copies between a chain's segments and a flat buffer; the number of bytes copied. `offset` counts from the first
// segment's first byte.
std::size_t copyFrom(std::span<const iovec> segments, std::uint64_t offset, memory::Bytes target) noexcept;
std::size_t copyTo(std::span<const iovec> segments, std::uint64_t offset, memory::ConstBytes source) noexcept;
// The same from the first byte on, of a size that the compiler knows: headers, which mostly are in one segment. Whole,
// or false.
template <std::size_t kSize>
bool copyHeaderFrom(std::span<const iovec> segments, std::array<std::uint8_t, kSize>& target) noexcept {
  if (!segments.empty() && segments[0].iov_len >= kSize) {
    std::memcpy(target.data(), segments[0].iov_base, kSize);
    // The guest may change it while it is looked at: what was checked is what is used.
    std::atomic_signal_fence(std::memory_order_seq_cst);
    return true;
  }
  return copyFrom(segments, 0, target) == kSize;
}
template <std::size_t kSize>
bool copyHeaderTo(std::span<const iovec> segments, const std::array<std::uint8_t, kSize>& source) noexcept {
  if (!segments.empty() && segments[0].iov_len >= kSize) {
    std::memcpy(segments[0].iov_base, source.data(), kSize);
    return true;
  }
  return copyTo(segments, 0, source) == kSize;
}

}  // namespace vmmhost::kvm::virtio
