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
#include "worker-kvm/threads/wake.h"
#include "worker-kvm/virtio/block/disk_file.h"
#include "worker-kvm/virtio/block/pages.h"
#include "worker-kvm/virtio/block/request.h"

namespace vmmhost::kvm::virtio::block {

class Completions;

// What is to be done; part of the request that it is for, so that none is ever allocated.
struct BlockingWork {
  Action action = Action::kAnswer;  // kDiscard, kWriteZeroes, kRead, kWrite
  bool durable = false;             // on the disk before it is done
  std::span<const Range> ranges;
  std::span<const iovec> segments;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  std::int64_t result = 0;  // bytes of a transfer, or 0; a negative errno value
  std::uint32_t tag = 0;    // the sender's
  Completions* completions = nullptr;
  BlockingWork* next = nullptr;
};

// Where work comes back to: one for each sender.
class Completions {
 public:
  // Readable, edge by edge, when something came back.
  int descriptor() const noexcept { return wake_.descriptor(); }
  BlockingWork* takeAll() noexcept {
    const std::lock_guard lock(mutex_);
    return std::exchange(first_, nullptr);
  }
  void put(BlockingWork& work) noexcept;

  // Work under way ends as soon as it can, with -ECANCELED.
  void setAbandoned(bool abandoned) noexcept { abandoned_.store(abandoned, std::memory_order_relaxed); }
  bool isAbandoned() const noexcept { return abandoned_.load(std::memory_order_relaxed); }

 private:
  threads::Wake wake_;
  std::mutex mutex_;
  BlockingWork* first_ = nullptr;
  std::atomic<bool> abandoned_ = false;
};

class BlockingThread {
 public:
  // `file` outlives it; `answers` are the descriptors of all Completions that it will put work into. Throws Error.
  BlockingThread(const DiskFile& file, std::span<const int> answers);

  // From any thread: carries `work` out, after those before it, and puts it into its `completions`. Both outlive that.
  void send(BlockingWork& work) noexcept;
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
  std::int64_t carryOut(const BlockingWork& work) const noexcept;
  std::int64_t changeRanges(const BlockingWork& work) const noexcept;
  std::int64_t writeZeroes(const Range& range, const Completions& completions) const noexcept;
  std::int64_t overwriteWithZeroes(Range range, const Completions& completions) const noexcept;
  std::int64_t transfer(const BlockingWork& work) const noexcept;

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
  BlockingWork* first_ = nullptr;
  BlockingWork* last_ = nullptr;
  Inbox inbox_;
  io::EventThread thread_;
};

}  // namespace vmmhost::kvm::virtio::block
