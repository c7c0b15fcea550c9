// A driver for tests of devices without a transport: memory, queues, and what was reported. Header only, for tests.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "vmmhost/memory_file.h"
#include "worker-kvm/memory/guest_memory.h"
#include "worker-kvm/threads/wake.h"
#include "worker-kvm/virtio/device.h"
#include "worker-kvm/virtio/features.h"

namespace vmmhost::kvm::virtio::test {

inline constexpr auto kDeadline = std::chrono::seconds(60);

// What a device reports, waited for.
class RecordedInterrupts final : public Interrupts {
 public:
  explicit RecordedInterrupts(std::size_t queues) : used_(queues) {}

  void queueUsed(std::uint16_t queue) noexcept override {
    const std::lock_guard lock(mutex_);
    ++used_.at(queue);
    event_.signal();
    changed_.notify_all();
  }
  void configChanged() noexcept override {
    const std::lock_guard lock(mutex_);
    ++config_;
    event_.signal();
    changed_.notify_all();
  }
  void deviceBroken(const char* reason) noexcept override {
    const std::lock_guard lock(mutex_);
    broken_ = reason;
    changed_.notify_all();
  }
  std::vector<int> descriptors() const override { return {event_.descriptor()}; }
  bool areToldTogether(std::uint16_t, std::uint16_t) const noexcept override { return together; }

  std::atomic<bool> together = false;

  template <typename Condition>
  bool waitFor(Condition condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kDeadline, condition);
  }
  unsigned used(std::uint16_t queue) {
    const std::lock_guard lock(mutex_);
    return used_.at(queue);
  }
  unsigned configChanges() {
    const std::lock_guard lock(mutex_);
    return config_;
  }
  std::string brokenReason() {
    const std::lock_guard lock(mutex_);
    return broken_;
  }
  bool waitForBroken() {
    return waitFor([this] { return !broken_.empty(); });
  }
  bool waitForUsed(std::uint16_t queue, unsigned count) {
    return waitFor([this, queue, count] { return used_.at(queue) >= count; });
  }
  bool waitForConfig(unsigned count) {
    return waitFor([this, count] { return config_ >= count; });
  }

 private:
  const threads::Wake event_;  // what a transport would write to: an eventfd that filters know of
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<unsigned> used_;
  unsigned config_ = 0;
  std::string broken_;
};

// A part of a request: bytes for the device to read, or room for it to write.
struct Part {
  std::uint64_t address = 0;
  std::uint32_t bytes = 0;
  bool writable = false;
};

// The driver's side of one queue. Descriptors are used in turn: at most `size` may be under way.
class DriverQueue {
 public:
  // Takes 64 KiB of guest memory at `base`.
  DriverQueue(memory::GuestMemory& memory, std::uint64_t base, std::uint16_t size, bool eventIndex)
      : memory_(memory), layout_{size, base, base + 0x8000, base + 0xc000, eventIndex, true} {}

  const QueueLayout& layout() const { return layout_; }
  const threads::Wake& kick() const { return kick_; }
  void notify() const { kick_.signal(); }

  // At once, as processors write what is aligned: several threads may lie in the same place.
  template <typename Value>
  void put(std::uint64_t address, Value value) {
    std::uint8_t* const place = memory_.require(address, sizeof value, "test").data();
    if (reinterpret_cast<std::uintptr_t>(place) % std::atomic_ref<Value>::required_alignment == 0) {
      std::atomic_ref<Value>(*reinterpret_cast<Value*>(place)).store(value, std::memory_order_relaxed);
    } else {
      std::memcpy(place, &value, sizeof value);
    }
  }
  template <typename Value>
  Value get(std::uint64_t address) const {
    Value value;
    std::memcpy(&value, memory_.require(address, sizeof value, "test").data(), sizeof value);
    return value;
  }

  // Makes a chain of these parts available; its head.
  std::uint16_t offer(const std::vector<Part>& parts) {
    const auto head = next_;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const std::uint16_t index = next_;
      next_ = static_cast<std::uint16_t>((next_ + 1) % layout_.size);
      const std::uint64_t at = layout_.descriptorTable + 16 * std::uint64_t{index};
      const bool isLast = i + 1 == parts.size();
      put(at, parts[i].address);
      put(at + 8, parts[i].bytes);
      put<std::uint16_t>(at + 12, static_cast<std::uint16_t>((isLast ? 0 : 1) | (parts[i].writable ? 2 : 0)));
      put<std::uint16_t>(at + 14, next_);
    }
    offerHead(head);
    return head;
  }
  void offerHead(std::uint16_t head) {
    shared(layout_.availableRing + 4 + 2 * (available_ % layout_.size)).store(head, std::memory_order_relaxed);
    ++available_;
    shared(layout_.availableRing + 2).store(available_, std::memory_order_release);
    std::atomic_thread_fence(std::memory_order_seq_cst);
  }

  struct Used {
    std::uint32_t head = 0;
    std::uint32_t bytes = 0;
  };
  std::uint16_t usedIndex() const { return shared(layout_.usedRing + 2).load(std::memory_order_acquire); }
  bool hasUsed() const { return usedIndex() != usedSeen_; }
  // The next used chain; waits for it. With an event index it asks to be told of it only when it has to wait.
  Used nextUsed(RecordedInterrupts& interrupts) {
    if (!hasUsed()) {
      if (layout_.eventIndex) {
        shared(layout_.availableRing + 4 + 2 * std::uint64_t{layout_.size}).store(usedSeen_, std::memory_order_relaxed);
        std::atomic_thread_fence(std::memory_order_seq_cst);
      }
      EXPECT_TRUE(interrupts.waitFor([this] { return hasUsed(); })) << "nothing was used in time";
    }
    const std::uint64_t at = layout_.usedRing + 4 + 8 * std::uint64_t{usedSeen_} % (8 * std::uint64_t{layout_.size});
    ++usedSeen_;
    return {get<std::uint32_t>(at), get<std::uint32_t>(at + 4)};
  }
  // Notifies if the device has asked for it since the last time (2.7.7, 2.7.10).
  void notifyIfWanted() {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const std::uint16_t before = std::exchange(notifiedOf_, available_);
    if (layout_.eventIndex) {
      const std::uint16_t wanted =
          shared(layout_.usedRing + 4 + 8 * std::uint64_t{layout_.size}).load(std::memory_order_relaxed);
      if (static_cast<std::uint16_t>(available_ - wanted - 1) >= static_cast<std::uint16_t>(available_ - before)) {
        return;
      }
    } else if ((shared(layout_.usedRing).load(std::memory_order_relaxed) & 1) != 0) {
      return;
    }
    notify();
  }

 private:
  // What both sides read and write while the other one does.
  std::atomic_ref<std::uint16_t> shared(std::uint64_t address) const {
    return std::atomic_ref(
        *reinterpret_cast<std::uint16_t*>(memory_.require(address, sizeof(std::uint16_t), "test").data()));
  }

  memory::GuestMemory& memory_;
  QueueLayout layout_;
  threads::Wake kick_;
  std::uint16_t next_ = 0;
  std::uint16_t available_ = 0;
  std::uint16_t notifiedOf_ = 0;
  std::uint16_t usedSeen_ = 0;
};

// A driver of one device: queues at 64 KiB each from 1 MiB on, data from 8 MiB on.
class Driver {
 public:
  static constexpr std::uint64_t kQueues = 1 << 20;
  static constexpr std::uint64_t kData = 8 << 20;
  static constexpr std::uint64_t kMemoryBytes = 64 << 20;

  explicit Driver(std::size_t queues, bool sharedMemory = false)
      : memory_(std::vector<memory::Range>{{0, kMemoryBytes}},
                sharedMemory ? makeMemoryFile("test", kMemoryBytes) : Fd()),
        interrupts_(queues) {}

  // Agrees on `features` and starts the device with queues of `size`; those `without` are not enabled.
  void start(Device& device, std::uint64_t features, std::uint16_t size = 128,
             const std::vector<std::size_t>& without = {}) {
    device_ = &device;
    queues_.clear();
    Activation activation;
    activation.features = features;
    const bool eventIndex = (features & kEventIdx) != 0;
    for (std::size_t i = 0; i < device.queueSizes().size(); ++i) {
      queues_.push_back(std::make_unique<DriverQueue>(memory_, kQueues + i * 0x10000, size, eventIndex));
      const auto area = memory_.require(kQueues + i * 0x10000, 0x10000, "test");
      std::fill(area.begin(), area.end(), std::uint8_t{0});
      auto queue = Queue::make(memory_, queues_.back()->layout());
      ASSERT_TRUE(queue);
      if (std::find(without.begin(), without.end(), i) != without.end()) {
        activation.queues.emplace_back();
        continue;
      }
      activation.queues.push_back(
          ActiveQueue{static_cast<std::uint16_t>(i), *queue, queues_.back()->kick().descriptor()});
    }
    device.activate(std::move(activation));
  }
  // Deactivates the device and waits for it.
  void stop() {
    std::promise<void> done;
    auto future = done.get_future();
    device_->deactivate([&done] { done.set_value(); });
    ASSERT_EQ(future.wait_for(kDeadline), std::future_status::ready) << "the device does not stop";
  }

  memory::GuestMemory& memory() { return memory_; }
  RecordedInterrupts& interrupts() { return interrupts_; }
  DriverQueue& queue(std::size_t index) { return *queues_.at(index); }
  memory::Bytes data(std::uint64_t offset, std::uint64_t bytes) {
    return memory_.require(kData + offset, bytes, "test");
  }

 private:
  memory::GuestMemory memory_;
  RecordedInterrupts interrupts_;
  std::vector<std::unique_ptr<DriverQueue>> queues_;
  Device* device_ = nullptr;
};

}  // namespace vmmhost::kvm::virtio::test
