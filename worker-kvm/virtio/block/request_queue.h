// One request queue of a disk and the thread that serves it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "worker-kvm/io/event_thread.h"
#include "worker-kvm/virtio/block/blocking_thread.h"
#include "worker-kvm/virtio/block/disk_file.h"
#include "worker-kvm/virtio/block/engine.h"
#include "worker-kvm/virtio/block/pool.h"
#include "worker-kvm/virtio/block/request.h"
#include "worker-kvm/virtio/device.h"
#include "worker-kvm/virtio/device_thread.h"

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
  const Shape& shape;                     // for the driver that is there: stays while a queue is active
  std::function<void(const std::string&)> log;
  std::function<void()> full;
};

class RequestQueue final : private DeviceThread::Server, private Engine::Client {
 public:
  // Starts the thread. `common` and `completions` outlive it. Throws Error.
  RequestQueue(const std::string& threadName, const Common& common, std::unique_ptr<Engine> engine,
               Completions& completions);

  // As of DeviceThread. The activation has one queue at most; what is served is common.shape.
  void activate(Activation activation) noexcept { thread_.activate(std::move(activation)); }
  void deactivate(std::function<void()> done) noexcept;
  // Ends whatever is under way, without the wait for it that the destructor is.
  void beginEnd() noexcept;
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
    BlockingWork work;
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
  void start(Activation activation) noexcept override;
  bool stop() noexcept override;
  void serve() noexcept;
  void reap() noexcept;
  void takeReturns() noexcept;

  void settle() noexcept;
  bool fetchAvailable(unsigned& budget) noexcept;
  void handOver() noexcept;
  void publish() noexcept;
  void breakDevice(const char* reason) noexcept;

  // Requests.
  void accept() noexcept;
  void acceptData(const Request& request) noexcept;
  void acceptRanges(const Request& request) noexcept;
  void acceptFlush(const Request& request) noexcept;
  std::uint16_t takeSlot(const Request& request) noexcept;
  void begin(std::uint16_t tag) noexcept;
  void sendWork(std::uint16_t tag) noexcept;
  void completed(std::uint32_t tag, std::int64_t result) noexcept override;
  bool isFinishedBy(std::uint16_t tag, std::int64_t result) noexcept;
  void finish(std::uint16_t tag, Status status) noexcept;
  void answer(std::uint16_t head, const Request& request, Status status, std::uint64_t moved) noexcept;
  void report(const Slot& slot, std::int64_t result) noexcept;
  bool mustBeDurable() const noexcept;

  const Common& common_;
  const std::unique_ptr<Engine> engine_;
  Completions& blocking_;

  // Of the thread.
  std::optional<ActiveQueue> active_;
  Shape shape_;
  bool isStopping_ = false;  // until nothing is under way any more
  bool isBroken_ = false;
  bool isFull_ = false;   // there may be more to fetch once something is finished
  bool hasUsed_ = false;  // since the last decision about an interrupt
  std::uint64_t errors_ = 0;
  std::uint64_t errorsForWantOfRoom_ = 0;
  Chain chain_;  // the one being fetched
  Pool<Slot, kQueueSize> slots_;
  Pool<std::array<iovec, kQueueSize>, kQueueSize> manySegments_;
  Pool<Ranges, kQueueSize> ranges_;

  Call kicked_{*this, &RequestQueue::serve};
  Call completions_{*this, &RequestQueue::reap};
  Call returned_{*this, &RequestQueue::takeReturns};
  DeviceThread thread_;  // ends first
};

}  // namespace vmmhost::kvm::virtio::block
