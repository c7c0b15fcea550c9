#include "worker-kvm/virtio/block/blocking_thread.h"

#include <asm/unistd.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace vmmhost::kvm::virtio::block {

namespace {

constexpr std::size_t kBufferBytes = 64 * 1024;  // as large as the largest block
constexpr std::size_t kZeroSegments = 16;        // of a step

confine::Rules rulesFor(const DiskFile& file, std::span<const int> answers) {
  confine::Rules rules = file.transferRules();
  if (!file.isReadOnly()) {
    confine::append(rules, file.allocationRules());
  }
  for (const int descriptor : answers) {
    rules.push_back(confine::callOn(__NR_write, descriptor));
  }
  return rules;
}

// The file system or device has no such operation, or not for a range like this.
bool isUnsupported(std::int64_t result) noexcept {
  return result == -EOPNOTSUPP || result == -EINVAL || result == -ENODEV || result == -ENOSYS;
}

template <typename Call>
std::int64_t untilNotInterrupted(Call call) noexcept {
  std::int64_t result = 0;
  do {
    result = call();
  } while (result == -EINTR);
  return result;
}

}  // namespace

void Completions::put(BlockingWork& work) noexcept {
  {
    const std::lock_guard lock(mutex_);
    work.next = std::exchange(first_, &work);
  }
  wake_.signal();
}

BlockingThread::BlockingThread(const DiskFile& file, std::span<const int> answers)
    : file_(file),
      zeroes_(kBufferBytes, PROT_READ),
      buffer_(kBufferBytes, PROT_READ | PROT_WRITE),
      inbox_(*this),
      thread_(file.name() + "-block", rulesFor(file, answers)) {
}

void BlockingThread::send(BlockingWork& work) noexcept {
  {
    const std::lock_guard lock(mutex_);
    work.next = nullptr;
    (first_ == nullptr ? first_ : last_->next) = &work;
    last_ = &work;
  }
  thread_.post(inbox_);
}

void BlockingThread::work() noexcept {
  while (true) {
    BlockingWork* work = nullptr;
    {
      const std::lock_guard lock(mutex_);
      if (first_ == nullptr) {
        return;
      }
      work = std::exchange(first_, first_->next);
    }
    work->result = carryOut(*work);
    work->completions->put(*work);
  }
}

std::int64_t BlockingThread::carryOut(const BlockingWork& work) const noexcept {
  const bool isTransfer = work.action == Action::kRead || work.action == Action::kWrite;
  std::int64_t result = isTransfer ? transfer(work) : changeRanges(work);
  if (result >= 0 && work.durable) {
    if (const auto synced = untilNotInterrupted([this] { return file_.syncData(); }); synced < 0) {
      result = synced;
    }
  }
  return result;
}

std::int64_t BlockingThread::changeRanges(const BlockingWork& work) const noexcept {
  for (const Range& range : work.ranges) {
    if (work.completions->isAbandoned()) {
      return -ECANCELED;
    }
    std::int64_t result = 0;
    if (work.action == Action::kDiscard) {
      // A hint: where nothing can be given back the data just stays.
      result = untilNotInterrupted([&] { return file_.punch(range.offset, range.bytes); });
      result = isUnsupported(result) ? 0 : result;
    } else {
      result = writeZeroes(range, *work.completions);
    }
    if (result < 0) {
      return result;
    }
  }
  return 0;
}

std::int64_t BlockingThread::writeZeroes(const Range& range, const Completions& completions) const noexcept {
  std::int64_t result = -EOPNOTSUPP;
  if (range.unmap) {
    result = untilNotInterrupted([&] { return file_.punch(range.offset, range.bytes); });
  }
  // Not FALLOC_FL_ZERO_RANGE, by which a worker that was taken over could fill the file system: no filter has it.
  return isUnsupported(result) ? overwriteWithZeroes(range, completions) : result;
}

std::int64_t BlockingThread::overwriteWithZeroes(Range range, const Completions& completions) const noexcept {
  const std::uint64_t block = file_.isDirect() ? file_.blockBytes() : 1;
  while (range.bytes != 0) {
    if (completions.isAbandoned()) {
      return -ECANCELED;
    }
    std::int64_t moved = 0;
    if (range.offset % block != 0 || range.bytes < block) {
      const Window edge = windowAt(range.offset, std::min(range.bytes, block - range.offset % block));
      moved = readWindow(edge);
      if (moved == 0) {
        std::memset(buffer_.data() + edge.lead, 0, edge.part);
        moved = writeWindow(edge);
      }
      moved = moved < 0 ? moved : static_cast<std::int64_t>(edge.part);
    } else {
      std::array<iovec, kZeroSegments> segments{};
      std::size_t count = 0;
      std::uint64_t left = range.bytes / block * block;
      while (left != 0 && count < segments.size()) {
        const std::uint64_t bytes = std::min<std::uint64_t>(left, zeroes_.size());
        segments[count++] = {zeroes_.data(), bytes};
        left -= bytes;
      }
      moved = untilNotInterrupted([&] { return file_.write({segments.data(), count}, range.offset, false); });
      moved = moved == 0 ? -EIO : moved;
    }
    if (moved < 0) {
      return moved;
    }
    range.offset += static_cast<std::uint64_t>(moved);
    range.bytes -= static_cast<std::uint64_t>(moved);
  }
  return 0;
}

std::int64_t BlockingThread::transfer(const BlockingWork& work) const noexcept {
  std::uint64_t done = 0;
  while (done < work.bytes) {
    if (work.completions->isAbandoned()) {
      return -ECANCELED;
    }
    const Window window = windowAt(work.offset + done, work.bytes - done);
    const memory::Bytes part(buffer_.data() + window.lead, window.part);
    std::int64_t result = 0;
    if (work.action == Action::kRead || !window.isWhole()) {
      result = readWindow(window);
    }
    if (result == 0 && work.action == Action::kRead) {
      copyTo(work.segments, done, part);
    } else if (result == 0) {
      copyFrom(work.segments, done, part);
      result = writeWindow(window);
    }
    if (result < 0) {
      return result;
    }
    done += window.part;
  }
  return static_cast<std::int64_t>(done);
}

BlockingThread::Window BlockingThread::windowAt(std::uint64_t offset, std::uint64_t bytes) const noexcept {
  const std::uint64_t block = file_.blockBytes();
  Window window;
  window.start = offset / block * block;
  window.lead = offset - window.start;
  window.part = std::min<std::uint64_t>(bytes, buffer_.size() - window.lead);
  window.bytes = (window.lead + window.part + block - 1) / block * block;
  return window;
}

std::int64_t BlockingThread::readWindow(const Window& window) const noexcept {
  std::size_t done = 0;
  while (done < window.bytes) {
    const iovec rest{buffer_.data() + done, window.bytes - done};
    const auto got = untilNotInterrupted([&] { return file_.read({&rest, 1}, window.start + done); });
    if (got <= 0) {
      return got < 0 ? got : -EIO;
    }
    done += static_cast<std::size_t>(got);
  }
  return 0;
}

std::int64_t BlockingThread::writeWindow(const Window& window) const noexcept {
  std::size_t done = 0;
  while (done < window.bytes) {
    const iovec rest{buffer_.data() + done, window.bytes - done};
    const auto put = untilNotInterrupted([&] { return file_.write({&rest, 1}, window.start + done, false); });
    if (put <= 0) {
      return put < 0 ? put : -EIO;
    }
    done += static_cast<std::size_t>(put);
  }
  return 0;
}

}  // namespace vmmhost::kvm::virtio::block
