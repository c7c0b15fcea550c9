#include "worker-kvm/virtio/queue.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>

namespace vmmhost::kvm::virtio {

namespace {

// virtio 1.2, 2.7.5: struct virtq_desc.
constexpr std::size_t kDescriptorBytes = 16;
constexpr std::uint16_t kNext = 1;
constexpr std::uint16_t kWrite = 2;
constexpr std::uint16_t kIndirect = 4;
// 2.7.6 and 2.7.8: flags, idx, ring[], used_event or avail_event.
constexpr std::size_t kRingHeaderBytes = 4;
constexpr std::size_t kAvailableEntryBytes = 2;
constexpr std::size_t kUsedEntryBytes = 8;
constexpr std::size_t kEventBytes = 2;
constexpr std::uint16_t kNoInterrupt = 1;  // available.flags
constexpr std::uint16_t kNoNotify = 1;     // used.flags
constexpr std::uint64_t kMaxChainBytes = std::uint64_t{1} << 32;

static_assert(std::endian::native == std::endian::little, "virtio 1.2, 1.4: fields are little-endian");

// Shared with the guest: each field is read and written once, whole, and in the order asked for.
std::uint16_t load16(std::uint8_t* at, std::memory_order order) noexcept {
  return std::atomic_ref<std::uint16_t>(*reinterpret_cast<std::uint16_t*>(at)).load(order);
}
void store16(std::uint8_t* at, std::uint16_t value, std::memory_order order) noexcept {
  std::atomic_ref<std::uint16_t>(*reinterpret_cast<std::uint16_t*>(at)).store(value, order);
}

struct Descriptor {
  std::uint64_t address = 0;
  std::uint32_t length = 0;
  std::uint16_t flags = 0;
  std::uint16_t next = 0;
};

Descriptor readDescriptor(const std::uint8_t* at) noexcept {
  Descriptor descriptor;
  std::memcpy(&descriptor.address, at, 8);
  std::memcpy(&descriptor.length, at + 8, 4);
  std::memcpy(&descriptor.flags, at + 12, 2);
  std::memcpy(&descriptor.next, at + 14, 2);
  // The guest may change it while it is looked at: what was checked is what is used.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  return descriptor;
}

}  // namespace

std::optional<Queue> Queue::make(const memory::GuestMemory& memory, const QueueLayout& layout) {
  if (!std::has_single_bit(layout.size) || layout.size > kMaxQueueSize) {
    return std::nullopt;
  }
  // 2.7: alignments of the three parts.
  if (layout.descriptorTable % 16 != 0 || layout.availableRing % 2 != 0 || layout.usedRing % 4 != 0) {
    return std::nullopt;
  }
  const std::size_t size = layout.size;
  const auto descriptors = memory.at(layout.descriptorTable, size * kDescriptorBytes);
  const auto available = memory.at(layout.availableRing, kRingHeaderBytes + size * kAvailableEntryBytes + kEventBytes);
  const auto used = memory.at(layout.usedRing, kRingHeaderBytes + size * kUsedEntryBytes + kEventBytes);
  if (!descriptors || !available || !used) {
    return std::nullopt;
  }
  return Queue(memory, layout, *descriptors, *available, *used);
}

Queue::Queue(const memory::GuestMemory& memory, const QueueLayout& layout, memory::Bytes descriptors,
             memory::Bytes available, memory::Bytes used)
    : memory_(&memory),
      layout_(layout),
      descriptors_(descriptors.data()),
      available_(available.data()),
      used_(used.data()) {
}

Queue::Fetched Queue::broken() noexcept {
  broken_ = true;
  return Fetched::kBroken;
}

Queue::Fetched Queue::fetch(Chain& chain) noexcept {
  if (broken_) {
    return Fetched::kBroken;
  }
  const std::uint16_t end = load16(available_ + 2, std::memory_order_acquire);
  const auto waiting = static_cast<std::uint16_t>(end - nextAvailable_);
  if (waiting == 0) {
    return Fetched::kNone;
  }
  if (waiting > layout_.size) {
    return broken();
  }
  const std::size_t slot = nextAvailable_ & (layout_.size - 1);
  chain.head = load16(available_ + kRingHeaderBytes + slot * kAvailableEntryBytes, std::memory_order_relaxed);
  chain.readable.clear();
  chain.writable.clear();
  chain.readableBytes = 0;
  chain.writableBytes = 0;
  if (!walk(chain)) {
    return broken();
  }
  ++nextAvailable_;
  return Fetched::kChain;
}

bool Queue::walk(Chain& chain) noexcept {
  const std::uint8_t* table = descriptors_;
  std::uint32_t tableSize = layout_.size;
  std::uint32_t index = chain.head;
  bool mayBeIndirect = layout_.indirect;
  // 2.7.5.3.1: a chain is no longer than the queue, in the table and in an indirect one together.
  std::uint32_t budget = layout_.size;
  while (true) {
    if (index >= tableSize || budget == 0) {
      return false;
    }
    const Descriptor descriptor = readDescriptor(table + std::size_t{index} * kDescriptorBytes);
    const auto bytes = memory_->at(descriptor.address, descriptor.length);
    if (!bytes) {
      return false;
    }
    if ((descriptor.flags & kIndirect) != 0) {
      // 2.7.5.3.1: not inside another, not followed by more, whole descriptors. It stands for the chain, and is none of
      // its buffers.
      tableSize = descriptor.length / kDescriptorBytes;
      if (!mayBeIndirect || (descriptor.flags & kNext) != 0 || descriptor.length % kDescriptorBytes != 0 ||
          tableSize == 0 || tableSize > 65536) {
        return false;
      }
      table = bytes->data();
      index = 0;
      mayBeIndirect = false;
      continue;
    }
    --budget;
    const bool isWritable = (descriptor.flags & kWrite) != 0;
    // 2.7.4.2: what the device reads comes before what it writes.
    if (!isWritable && !chain.writable.empty()) {
      return false;
    }
    (isWritable ? chain.writableBytes : chain.readableBytes) += descriptor.length;
    if (chain.readableBytes + chain.writableBytes > kMaxChainBytes) {
      return false;
    }
    if (descriptor.length != 0) {
      (isWritable ? chain.writable : chain.readable).push_back({bytes->data(), bytes->size()});
    }
    if ((descriptor.flags & kNext) == 0) {
      return true;
    }
    index = descriptor.next;
  }
}

void Queue::publishUsed(std::uint16_t head, std::uint32_t writtenBytes) noexcept {
  addUsed(head, writtenBytes);
  publish();
}

void Queue::publishUsed(std::span<const Used> chains) noexcept {
  for (const Used& chain : chains) {
    addUsed(chain.head, chain.writtenBytes);
  }
  publish();
}

void Queue::publish() noexcept {
  store16(used_ + 2, nextUsed_, std::memory_order_release);
}

void Queue::addUsed(std::uint16_t head, std::uint32_t writtenBytes) noexcept {
  std::uint8_t* entry = used_ + kRingHeaderBytes + std::size_t{nextUsed_ & (layout_.size - 1U)} * kUsedEntryBytes;
  const std::uint32_t id = head;
  std::memcpy(entry, &id, sizeof id);
  std::memcpy(entry + 4, &writtenBytes, sizeof writtenBytes);
  ++nextUsed_;
}

bool Queue::needsInterrupt() noexcept {
  // The used index has to be seen before the driver's wish is read (2.7.10.1).
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!signalledValid_) {
    signalledValid_ = true;
    lastSignalled_ = nextUsed_;
    return layout_.eventIndex || (load16(available_, std::memory_order_relaxed) & kNoInterrupt) == 0;
  }
  const std::uint16_t before = lastSignalled_;
  if (nextUsed_ == before) {
    return false;
  }
  lastSignalled_ = nextUsed_;
  if (!layout_.eventIndex) {
    return (load16(available_, std::memory_order_relaxed) & kNoInterrupt) == 0;
  }
  const std::uint16_t wanted =
      load16(available_ + kRingHeaderBytes + layout_.size * kAvailableEntryBytes, std::memory_order_relaxed);
  // vring_need_event of the specification: wanted lies in [before, nextUsed).
  return static_cast<std::uint16_t>(nextUsed_ - wanted - 1) < static_cast<std::uint16_t>(nextUsed_ - before);
}

bool Queue::enableNotifications() noexcept {
  if (layout_.eventIndex) {
    store16(used_ + kRingHeaderBytes + layout_.size * kUsedEntryBytes, nextAvailable_, std::memory_order_relaxed);
  } else {
    store16(used_, 0, std::memory_order_relaxed);
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return !broken_ && load16(available_ + 2, std::memory_order_acquire) != nextAvailable_;
}

void Queue::disableNotifications() noexcept {
  // With an event index, one that lies behind does it: nothing to write.
  if (!layout_.eventIndex) {
    store16(used_, kNoNotify, std::memory_order_relaxed);
  }
}

void Queue::setPosition(Position position) noexcept {
  nextAvailable_ = position.nextAvailable;
  nextUsed_ = position.nextUsed;
  signalledValid_ = false;
}

namespace {

// Calls move(segmentPart, done) for the parts of `segments` from `offset` on, until `bytes` are moved.
template <typename Move>
std::size_t eachPart(std::span<const iovec> segments, std::uint64_t offset, std::size_t bytes, Move move) noexcept {
  std::size_t done = 0;
  for (const iovec& segment : segments) {
    if (offset >= segment.iov_len) {
      offset -= segment.iov_len;
      continue;
    }
    const std::size_t count = std::min<std::size_t>(segment.iov_len - offset, bytes - done);
    move(static_cast<std::uint8_t*>(segment.iov_base) + offset, done, count);
    done += count;
    offset = 0;
    if (done == bytes) {
      break;
    }
  }
  return done;
}

}  // namespace

std::size_t copyFrom(std::span<const iovec> segments, std::uint64_t offset, memory::Bytes target) noexcept {
  return eachPart(segments, offset, target.size(), [&](const std::uint8_t* part, std::size_t done, std::size_t count) {
    std::memcpy(target.data() + done, part, count);
  });
}

std::size_t copyTo(std::span<const iovec> segments, std::uint64_t offset, memory::ConstBytes source) noexcept {
  return eachPart(segments, offset, source.size(), [&](std::uint8_t* part, std::size_t done, std::size_t count) {
    std::memcpy(part, source.data() + done, count);
  });
}

}  // namespace vmmhost::kvm::virtio
