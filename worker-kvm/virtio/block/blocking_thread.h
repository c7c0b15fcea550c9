// The thread of a disk for what can only be done by system calls that block: giving parts of the file back, zeroing
// them, and transfers whose memory or sectors are not aligned as a file that was opened with O_DIRECT asks for.
//
// Not by the rings: a ring can be restricted to FALLOCATE but not to its modes, of which others change a file's size.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <span>
#include <utility>

#include "worker-kvm/io/event_thread.h"
#include "worker-kvm/virtio/block/disk_file.h"
#include "worker-kvm/virtio/block/pages.h"
#include "worker-kvm/virtio/block/request.h"
#include "worker-kvm/vm/wake.h"

namespace vmmhost::kvm::virtio::block {

class Returns;

// What is to be done; part of the request that it is for, so that none is ever allocated.
struct Errand {
  Action action = Action::kAnswer;  // kDiscard, kWriteZeroes, kRead, kWrite
  bool durable = false;             // on the disk before it is done
  std::span<const Range> ranges;
  std::span<const iovec> segments;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  std::int64_t result = 0;  // bytes of a transfer, or 0; a negative errno value
  std::uint32_t tag = 0;    // the sender's
  Returns* returns = nullptr;
  Errand* next = nullptr;
};

// Where errands come back to: one for each sender.
class Returns {
 public:
  // Readable, edge by edge, when something came back.
  int descriptor() const noexcept { return wake_.descriptor(); }
  Errand* takeAll() noexcept {
    const std::lock_guard lock(mutex_);
    return std::exchange(first_, nullptr);
  }
  void put(Errand& errand) noexcept;

  // Errands under way end as soon as they can, with -ECANCELED.
  void setAbandoned(bool abandoned) noexcept { abandoned_.store(abandoned, std::memory_order_relaxed); }
  bool isAbandoned() const noexcept { return abandoned_.load(std::memory_order_relaxed); }

 private:
  vm::Wake wake_;
  std::mutex mutex_;
  Errand* first_ = nullptr;
  std::atomic<bool> abandoned_ = false;
};

class BlockingThread {
 public:
  // `file` outlives it; `answers` are the descriptors of all Returns that it will put errands into. Throws Error.
  BlockingThread(const DiskFile& file, std::span<const int> answers);

  // From any thread: carries `errand` out, after those before it, and puts it into its `returns`. Both outlive that.
  void send(Errand& errand) noexcept;
  int wakeDescriptor() const noexcept { return thread_.wakeDescriptor(); }

 private:
  class Inbox final : public io::EventThread::Job {
   public:
    explicit Inbox(BlockingThread& owner) : owner_(owner) {}
    void run() noexcept override { owner_.work(); }

   private:
    BlockingThread& owner_;
  };
  void work() noexcept;
  std::int64_t carryOut(const Errand& errand) const noexcept;
  std::int64_t changeRanges(const Errand& errand) const noexcept;
  std::int64_t writeZeroes(const Range& range, const Returns& returns) const noexcept;
  std::int64_t overwriteWithZeroes(Range range, const Returns& returns) const noexcept;
  std::int64_t transfer(const Errand& errand) const noexcept;

  // The blocks of the file that a part of it lies in, as many of them as fit into the buffer.
  struct Window {
    std::uint64_t start = 0;
    std::size_t bytes = 0;
    std::size_t lead = 0;  // the part begins so far in
    std::size_t part = 0;  // and is so long here
    bool isWhole() const noexcept { return lead == 0 && part == bytes; }
  };
  Window windowAt(std::uint64_t offset, std::uint64_t bytes) const noexcept;
  // Between the file and the buffer, all of it: 0 or a negative errno value.
  std::int64_t readWindow(const Window& window) const noexcept;
  std::int64_t writeWindow(const Window& window) const noexcept;

  const DiskFile& file_;
  Pages zeroes_;  // never written, so that it takes no memory
  Pages buffer_;
  std::mutex mutex_;
  Errand* first_ = nullptr;
  Errand* last_ = nullptr;
  Inbox inbox_;
  io::EventThread thread_;
};

}  // namespace vmmhost::kvm::virtio::block
