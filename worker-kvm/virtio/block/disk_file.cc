#include "worker-kvm/virtio/block/disk_file.h"

#include <asm/unistd.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "vmmhost/error.h"
#include "worker-kvm/virtio/block/pages.h"

namespace vmmhost::kvm::virtio::block {

namespace {

constexpr std::uint32_t kSmallestBlock = 512;
constexpr std::uint32_t kLargestBlock = 64 * 1024;
constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

std::int64_t resultOf(std::int64_t returned) noexcept {
  return returned < 0 ? -errno : returned;
}

}  // namespace

DiskFile::DiskFile(std::string name, Fd descriptor, bool readOnly)
    : name_(std::move(name)), descriptor_(std::move(descriptor)), readOnly_(readOnly) {
  const int flags = ::fcntl(descriptor_.get(), F_GETFL);
  struct stat status {};
  // The end of a block device is its size, too.
  const off_t end = ::lseek(descriptor_.get(), 0, SEEK_END);
  if (flags < 0 || ::fstat(descriptor_.get(), &status) != 0 || end < 0) {
    throw systemError(name_, errno);
  }
  if (!readOnly_ && (flags & O_ACCMODE) != O_RDWR) {
    throw Error(ErrorCode::kInvalidArgument, name_ + ": a writable disk whose file is open for reading only");
  }
  bytes_ = static_cast<std::uint64_t>(end);
  direct_ = (flags & O_DIRECT) != 0;
  if (direct_) {
    findAlignment();
  }
  // What is left of a last block cannot be reached by itself.
  const std::uint64_t wholeFile = bytes_;
  bytes_ = bytes_ / blockBytes_ * blockBytes_;
  preferredBytes_ = std::clamp(std::bit_floor(static_cast<std::uint32_t>(status.st_blksize)), blockBytes_,
                               std::max(blockBytes_, kLargestBlock));
  if (!readOnly_) {
    // Behind the end, where there is nothing to lose. A block device says so when it is asked to.
    const auto behind = static_cast<off_t>((wholeFile + preferredBytes_ - 1) / preferredBytes_ * preferredBytes_);
    canPunch_ = S_ISBLK(status.st_mode) ||
                ::fallocate(descriptor_.get(), kPunch, behind, static_cast<off_t>(preferredBytes_)) == 0;
  }
}

bool DiskFile::readsAt(std::uint32_t block, std::uint32_t alignment) const {
  // Memory that is aligned so, and no better.
  const Pages scratch(2 * kLargestBlock, PROT_READ | PROT_WRITE);
  // An offset that is a multiple of this block and of no larger one, where the file is long enough for that.
  const off_t offset = bytes_ >= 2 * std::uint64_t{block} ? static_cast<off_t>(block) : 0;
  return ::pread(descriptor_.get(), scratch.data() + alignment, block, offset) >= 0;
}

// No system call tells it that every kernel has; what is not aligned fails.
void DiskFile::findAlignment() {
  for (blockBytes_ = kSmallestBlock; !readsAt(blockBytes_, kLargestBlock); blockBytes_ *= 2) {
    if (errno != EINVAL) {
      throw systemError(name_, errno);
    }
    if (blockBytes_ == kLargestBlock) {
      throw Error(ErrorCode::kUnsupported, name_ + ": it cannot be read past the page cache (O_DIRECT)",
                  "choose another cache mode");
    }
  }
  for (memoryAlignment_ = kSmallestBlock; memoryAlignment_ < blockBytes_; memoryAlignment_ *= 2) {
    if (readsAt(blockBytes_, memoryAlignment_)) {
      break;
    }
  }
}

bool DiskFile::isAligned(std::span<const iovec> segments, std::uint64_t offset, std::uint64_t bytes) const noexcept {
  if (!direct_) {
    return true;
  }
  if (offset % blockBytes_ != 0 || bytes % blockBytes_ != 0) {
    return false;
  }
  return std::all_of(segments.begin(), segments.end(), [this](const iovec& segment) {
    return reinterpret_cast<std::uintptr_t>(segment.iov_base) % memoryAlignment_ == 0 &&
           segment.iov_len % blockBytes_ == 0;
  });
}

std::int64_t DiskFile::read(std::span<const iovec> segments, std::uint64_t offset) const noexcept {
  return resultOf(
      ::preadv(descriptor_.get(), segments.data(), static_cast<int>(segments.size()), static_cast<off_t>(offset)));
}

std::int64_t DiskFile::write(std::span<const iovec> segments, std::uint64_t offset, bool durable) const noexcept {
  const int count = static_cast<int>(segments.size());
  if (durable) {
    return resultOf(::pwritev2(descriptor_.get(), segments.data(), count, static_cast<off_t>(offset), RWF_DSYNC));
  }
  return resultOf(::pwritev(descriptor_.get(), segments.data(), count, static_cast<off_t>(offset)));
}

std::int64_t DiskFile::syncData() const noexcept {
  return resultOf(::fdatasync(descriptor_.get()));
}

std::int64_t DiskFile::punch(std::uint64_t offset, std::uint64_t bytes) const noexcept {
  return resultOf(::fallocate(descriptor_.get(), kPunch, static_cast<off_t>(offset), static_cast<off_t>(bytes)));
}

confine::Rules DiskFile::transferRules() const {
  confine::Rules rules = {confine::callOn(__NR_preadv, descriptor_.get())};
  if (!readOnly_) {
    const seccomp::Rule file = confine::callOn(__NR_pwritev2, descriptor_.get());
    seccomp::Rule durable = file;
    durable.checks.push_back({5, 0xffffffff, RWF_DSYNC});
    confine::append(rules, {confine::callOn(__NR_pwritev, descriptor_.get()),
                            confine::callOn(__NR_fdatasync, descriptor_.get()), durable});
  }
  return rules;
}

confine::Rules DiskFile::allocationRules() const {
  seccomp::Rule rule = confine::callOn(__NR_fallocate, descriptor_.get());
  rule.checks.push_back({1, 0xffffffff, static_cast<std::uint32_t>(kPunch)});
  return {rule};
}

}  // namespace vmmhost::kvm::virtio::block
