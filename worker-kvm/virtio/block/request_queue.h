// One request queue of a disk and the thread that serves it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "worker-kvm/io/event_thread.h"
#include "worker-kvm/virtio/block/blocking_thread.h"
#include "worker-kvm/virtio/block/disk_file.h"
#include "worker-kvm/virtio/block/engine.h"
#include "worker-kvm/virtio/block/pool.h"
#include "worker-kvm/virtio/block/request.h"
#include "worker-kvm/virtio/device.h"

namespace vmmhost::kvm::virtio::block {

inline constexpr std::uint16_t kQueueSize = 256;
static_assert(kQueueSize <= Engine::kMaxUnderWay);

// What the queues of a disk have in common.
struct Common {
  const DiskFile& file;
  Interrupts& interrupts;
  BlockingThread* blocking = nullptr;  // none: nothing here blocks
  std::array<std::uint8_t, kIdBytes> id{};
  bool unsafe = false;                    // nothing is made durable
  const std::atomic<bool>& writeThrough;  // each write is durable before it is answered
  std::function<void(const std::string&)> log;
  std::function<void()> full;
};

class RequestQueue final : private Engine::Client {
 public:
  // Starts the thread. `common` and `returns` outlive it. Throws Error.
  RequestQueue(const std::string& threadName, const Common& common, std::unique_ptr<Engine> engine, Returns& returns);

  // From any thread: what they ask for happens on the thread of the queue.
  void activate(const ActiveQueue& queue, const Shape& shape) noexcept;
  // Calls `stopped` once nothing of the guest's is touched any more, on the thread of the queue. Only after activate;
  // `stopped` outlives the call.
  void deactivate(const std::function<void()>& stopped) noexcept;
  int wakeDescriptor() const noexcept { return thread_.wakeDescriptor(); }

 private:
  static constexpr std::size_t kFewSegments = 16;
  static constexpr std::uint16_t kNone = 0xffff;

  // A request under way. Most have few segments; long lists are borrowed, as are lists of ranges.
  struct Slot {
    Request request;
    std::uint16_t head = 0;
    std::uint16_t many = kNone;    // of manySegments_
    std::uint16_t ranges = kNone;  // of ranges_
    Engine::Kind kind = Engine::Kind::kRead;
    // Of what is left:
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
    std::span<iovec> segments;
    Errand errand;
    std::array<iovec, kFewSegments> few;
  };

  // Calls a function of the queue: for descriptors and posts.
  class Call final : public io::EventThread::Source, public io::EventThread::Job {
   public:
    using Function = void (RequestQueue::*)() noexcept;
    Call(RequestQueue& queue, Function function) : queue_(queue), function_(function) {}
    void ready(std::uint32_t) noexcept override { (queue_.*function_)(); }
    void run() noexcept override { (queue_.*function_)(); }

   private:
    RequestQueue& queue_;
    Function function_;
  };

  // What wakes the thread.
  void followOrders() noexcept;
  void serve() noexcept;
  void reap() noexcept;
  void takeReturns() noexcept;

  void begin(const ActiveQueue& queue, const Shape& shape) noexcept;
  void settle() noexcept;
  bool takeAvailable(unsigned& budget) noexcept;
  void handOver() noexcept;
  void publish() noexcept;
  void breakDevice(const char* reason) noexcept;

  // Requests.
  void accept() noexcept;
  void acceptData(const Request& request) noexcept;
  void acceptRanges(const Request& request) noexcept;
  void acceptFlush(const Request& request) noexcept;
  std::uint16_t takeSlot(const Request& request) noexcept;
  void start(std::uint16_t tag) noexcept;
  void sendErrand(std::uint16_t tag) noexcept;
  void completed(std::uint32_t tag, std::int64_t result) noexcept override;
  bool isFinishedBy(std::uint16_t tag, std::int64_t result) noexcept;
  void finish(std::uint16_t tag, Status status) noexcept;
  void answer(std::uint16_t head, const Request& request, Status status, std::uint64_t moved) noexcept;
  void report(const Slot& slot, std::int64_t result) noexcept;
  bool mustBeDurable() const noexcept;

  const Common& common_;
  const std::unique_ptr<Engine> engine_;
  Returns& returns_;

  // Orders from other threads.
  std::mutex mutex_;
  std::optional<ActiveQueue> orderedQueue_;
  Shape orderedShape_;
  const std::function<void()>* orderedStop_ = nullptr;

  // Of the thread.
  std::optional<ActiveQueue> active_;
  Shape shape_;
  const std::function<void()>* stopped_ = nullptr;  // to be called when nothing is under way any more
  bool isBroken_ = false;
  bool isFull_ = false;    // there may be more to take once something is finished
  bool hasGiven_ = false;  // since the last decision about an interrupt
  std::uint64_t errors_ = 0;
  std::uint64_t errorsForWantOfRoom_ = 0;
  Chain chain_;  // the one being taken
  Pool<Slot, kQueueSize> slots_;
  Pool<std::array<iovec, kQueueSize>, kQueueSize> manySegments_;
  Pool<Ranges, kQueueSize> ranges_;

  Call orders_{*this, &RequestQueue::followOrders};
  Call kicked_{*this, &RequestQueue::serve};
  Call completions_{*this, &RequestQueue::reap};
  Call returned_{*this, &RequestQueue::takeReturns};
  io::EventThread thread_;
};

}  // namespace vmmhost::kvm::virtio::block
