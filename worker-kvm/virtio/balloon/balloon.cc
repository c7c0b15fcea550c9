#include "worker-kvm/virtio/balloon/balloon.h"

#include <asm/unistd.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "vmmhost/error.h"
#include "worker-kvm/virtio/balloon/pages.h"
#include "worker-kvm/virtio/features.h"

namespace vmmhost::kvm::virtio::balloon {

namespace {

// 5.5.4: num_pages, actual; what belongs to features that are not offered is not there.
constexpr std::uint64_t kActualOffset = 4;
constexpr std::size_t kConfigBytes = 8;
constexpr int kHole = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
constexpr std::uint64_t k32Bits = 0xffffffff;

}  // namespace

Balloon::Balloon(io::EventThread& thread, const memory::GuestMemory& memory, BalloonOptions options)
    : memory_(memory),
      options_(std::move(options)),
      inflate_([this] { serve(inflate_, &Balloon::inflatePiece); }),
      deflate_([this] { serve(deflate_, &Balloon::deflatePiece); }),
      report_([this] { serve(report_, &Balloon::reportPiece); }),
      more_([this] { serveAll(); }),
      thread_(*this, thread) {
  targetPages_ = pagesFor(options_.targetBytes);
  ranges_.reserve(kNumbersAtATime);
}

confine::Rules Balloon::rulesFor(const memory::GuestMemory& memory) {
  confine::Rules rules;
  if (memory.file() >= 0) {
    rules.push_back(
        {__NR_fallocate,
         {{0, k32Bits, static_cast<std::uint32_t>(memory.file())}, {1, k32Bits, static_cast<std::uint32_t>(kHole)}}});
  } else {
    rules.push_back(confine::callWith(__NR_madvise, 2, MADV_DONTNEED));
  }
  return rules;
}

std::uint64_t Balloon::features() const noexcept {
  return kIndirectDesc | kEventIdx | (options_.deflateOnOom ? kDeflateOnOom : 0) |
         (options_.freePageReporting ? kReporting : 0);
}

void Balloon::readConfig(std::uint64_t offset, std::span<std::uint8_t> data) noexcept {
  const std::uint32_t config[] = {targetPages_.load(std::memory_order_relaxed),
                                  actualPages_.load(std::memory_order_relaxed)};
  std::array<std::uint8_t, kConfigBytes> bytes;
  std::memcpy(bytes.data(), config, sizeof config);
  readBytes(bytes, offset, data);
}

void Balloon::writeConfig(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept {
  std::uint32_t pages = 0;
  if (offset == kActualOffset && data.size() == sizeof pages) {
    std::memcpy(&pages, data.data(), sizeof pages);
    actualPages_.store(pages, std::memory_order_relaxed);
  }
}

std::uint32_t Balloon::pagesFor(std::uint64_t bytes) const {
  const std::uint64_t most = memory_.totalBytes();
  if (bytes > most || bytes / kPageBytes > k32Bits) {
    throw Error(ErrorCode::kInvalidArgument,
                options_.name + ": a target of " + std::to_string(bytes) +
                    " bytes is more than the guest's memory of " + std::to_string(most) + " bytes",
                "the target is what the guest gives up, not what it keeps");
  }
  return static_cast<std::uint32_t>(bytes / kPageBytes);
}

void Balloon::setTarget(std::uint64_t bytes) {
  const std::uint32_t pages = pagesFor(bytes);
  if (targetPages_.exchange(pages) != pages && interrupts_ != nullptr) {
    interrupts_->configChanged();  // 5.5.6
  }
}

std::uint64_t Balloon::target() const noexcept {
  return targetPages_ * kPageBytes;
}

std::uint64_t Balloon::actual() const noexcept {
  return std::min(actualPages_ * kPageBytes, memory_.totalBytes());
}

void Balloon::deactivate(std::function<void()> done) noexcept {
  thread_.deactivate([this, done = std::move(done)] {
    actualPages_ = 0;  // whoever comes next has all of its memory
    done();
  });
}

void Balloon::start(Activation activation) noexcept {
  isBroken_ = false;
  inflate_.active = activation.moveQueue(kInflateQueue);
  deflate_.active = activation.moveQueue(kDeflateQueue);
  if ((activation.features & features() & kReporting) != 0) {
    // Drivers leave out queues of features that are not offered, and number the others anew (Linux does): whichever it
    // is, it is the last one.
    for (std::size_t index = kReportingQueue; index > kDeflateQueue && !report_.active; --index) {
      report_.active = activation.moveQueue(index);
    }
  }
  for (Served* served : {&inflate_, &deflate_, &report_}) {
    if (served->active) {
      // Edges: see the network device.
      thread_.events().watch(served->active->notified, EPOLLIN | EPOLLET, served->notified);
    }
  }
  serveAll();
}

bool Balloon::stop() noexcept {
  for (Served* served : {&inflate_, &deflate_, &report_}) {
    if (served->active) {
      thread_.events().unwatch(served->active->notified, served->notified);
      served->active.reset();
    }
    served->hasChain = false;
  }
  return true;
}

void Balloon::serveAll() noexcept {
  serve(inflate_, &Balloon::inflatePiece);
  serve(deflate_, &Balloon::deflatePiece);
  serve(report_, &Balloon::reportPiece);
}

void Balloon::serve(Served& served, bool (Balloon::*piece)(Served&) noexcept) noexcept {
  if (!served.active || isBroken_) {
    return;
  }
  Queue& queue = served.active->queue;
  queue.disableNotifications();
  bool isIdle = false;
  for (unsigned pieces = 0; pieces < kPiecesPerTurn && !isIdle; ++pieces) {
    if (!served.hasChain) {
      const Queue::Fetched fetched = queue.fetch(served.chain);
      if (fetched == Queue::Fetched::kBroken) {
        isBroken_ = true;
        interrupts_->deviceBroken("balloon: a queue of the driver is not what the specification asks for");
        return;
      }
      if (fetched == Queue::Fetched::kNone) {
        isIdle = !queue.enableNotifications();
        continue;
      }
      served.hasChain = true;
      served.done = 0;
    }
    if ((this->*piece)(served)) {
      served.hasChain = false;
      queue.publishUsed(served.chain.head, 0);
    }
  }
  if (queue.needsInterrupt()) {
    interrupts_->queueUsed(served.active->index);
  }
  if (!isIdle) {
    thread_.events().post(more_);
  }
}

// Some of the page numbers in a chain, each read once; none when there are no more.
std::span<std::uint32_t> Balloon::nextNumbers(Served& served) noexcept {
  const memory::Bytes bytes{reinterpret_cast<std::uint8_t*>(numbers_.data()), sizeof numbers_};
  const std::size_t got = copyFrom(served.chain.readable, served.done, bytes);
  served.done += got;
  return std::span(numbers_).first(got / sizeof(std::uint32_t));
}

bool Balloon::inflatePiece(Served& served) noexcept {
  const std::span<std::uint32_t> numbers = nextNumbers(served);
  ranges_.clear();
  const std::size_t outside = toRanges(numbers, memory_.regions(), ranges_);
  counters_.refusedPages.fetch_add(outside, std::memory_order_relaxed);
  for (const memory::Range& range : ranges_) {
    for (const auto& region : memory_.regions()) {
      if (region.guest.start <= range.start && range.end() <= region.guest.end()) {
        giveBack(region, range.start - region.guest.start, range.bytes);
      }
    }
    counters_.inflatedPages.fetch_add(range.bytes / kPageBytes, std::memory_order_relaxed);
  }
  return served.done >= served.chain.readableBytes;
}

// The memory comes back by itself when the guest touches it.
bool Balloon::deflatePiece(Served& served) noexcept {
  counters_.deflatedPages.fetch_add(served.chain.readableBytes / sizeof(std::uint32_t), std::memory_order_relaxed);
  return true;
}

// 5.5.6.7: one part of the chain at a time. Each was checked to be in a region when the chain was fetched.
bool Balloon::reportPiece(Served& served) noexcept {
  if (served.done < served.chain.writable.size()) {
    const iovec& part = served.chain.writable[served.done++];
    const auto* start = static_cast<const std::uint8_t*>(part.iov_base);
    for (const auto& region : memory_.regions()) {
      if (start < region.host.data() || start >= region.host.data() + region.host.size()) {
        continue;
      }
      const auto offset = static_cast<std::uint64_t>(start - region.host.data());
      const std::uint64_t first = (offset + kPageBytes - 1) / kPageBytes * kPageBytes;
      const std::uint64_t end = (offset + part.iov_len) / kPageBytes * kPageBytes;
      if (first < end) {
        giveBack(region, first, end - first);
        counters_.reportedBytes.fetch_add(end - first, std::memory_order_relaxed);
      }
    }
  }
  return served.done >= served.chain.writable.size();
}

// What the system does not take back stays as it is: nothing depends on it.
void Balloon::giveBack(const memory::GuestMemory::Region& region, std::uint64_t offset, std::uint64_t bytes) noexcept {
  if (memory_.file() >= 0) {
    const auto place = static_cast<off_t>(region.fileOffset + offset);
    while (::fallocate(memory_.file(), kHole, place, static_cast<off_t>(bytes)) != 0 && errno == EINTR) {
    }
  } else {
    ::madvise(region.host.data() + offset, bytes, MADV_DONTNEED);
  }
}

}  // namespace vmmhost::kvm::virtio::balloon
