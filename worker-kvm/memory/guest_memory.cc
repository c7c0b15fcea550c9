#include "worker-kvm/memory/guest_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <string>
#include <utility>

#include "vmmhost/error.h"

namespace vmmhost::kvm::memory {

namespace {

// Huge pages of the host's and of the guest's page tables fall together only where both begin at a multiple of their
// size; ranges do (0 and 4 GiB), so their mappings must. Nothing if there is no room.
constexpr std::uint64_t kHugePageBytes = std::uint64_t{2} << 20;

std::optional<Bytes> mapAligned(std::uint64_t bytes, int kind, int descriptor, std::uint64_t offset) {
  // Room for the alignment first, then the memory itself over the middle of it; the ends go back.
  const std::uint64_t roomBytes = bytes + kHugePageBytes;
  void* room = ::mmap(nullptr, roomBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (room == MAP_FAILED) {
    return std::nullopt;
  }
  auto* const start = static_cast<std::uint8_t*>(room);
  const std::uint64_t before = -reinterpret_cast<std::uintptr_t>(start) % kHugePageBytes;
  auto* const aligned = start + before;
  if (::mmap(aligned, bytes, PROT_READ | PROT_WRITE, kind | MAP_NORESERVE | MAP_FIXED, descriptor,
             static_cast<off_t>(offset)) == MAP_FAILED) {
    const int error = errno;
    ::munmap(start, roomBytes);
    errno = error;
    return std::nullopt;
  }
  if (before != 0) {
    ::munmap(start, before);
  }
  ::munmap(aligned + bytes, kHugePageBytes - before);
  return Bytes{aligned, bytes};
}

}  // namespace

GuestMemory::GuestMemory(std::span<const Range> ranges, Fd file) : file_(std::move(file)) {
  regions_.reserve(ranges.size());  // so that nothing throws between a mapping and its owner
  const int kind = file_ ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
  std::uint64_t offset = 0;
  for (const Range& range : ranges) {
    const auto mapping = mapAligned(range.bytes, kind, file_.get(), file_ ? offset : 0);
    if (!mapping) {
      const Error error = systemError("mapping " + std::to_string(range.bytes) + " bytes of guest memory", errno);
      for (const Region& region : regions_) {
        ::munmap(region.host.data(), region.host.size());
      }
      throw error;
    }
    // Of the 2 MiB at address 0 a guest touches some pages of tables, and to zero the others takes longer than all else
    // of making a VM: where the first is there already, the kernel takes no huge page at once.
    if (range.start == 0) {
      mapping->front() = 0;
    }
    // Where the host has them: fewer faults of the guest and of loading, and shorter walks ever after. A wish, no need.
    ::madvise(mapping->data(), mapping->size(), MADV_HUGEPAGE);
    regions_.push_back({range, *mapping, offset});
    offset += range.bytes;
  }
}

GuestMemory::~GuestMemory() {
  for (const Region& region : regions_) {
    ::munmap(region.host.data(), region.host.size());
  }
}

std::uint64_t GuestMemory::totalBytes() const noexcept {
  std::uint64_t total = 0;
  for (const Region& region : regions_) {
    total += region.guest.bytes;
  }
  return total;
}

Bytes GuestMemory::require(std::uint64_t address, std::uint64_t bytes, std::string_view what) const {
  const auto found = at(address, bytes);
  if (!found) {
    char range[64];
    std::snprintf(range, sizeof range, "0x%" PRIx64 " (%" PRIu64 " bytes)", address, bytes);
    throw Error(ErrorCode::kInvalidArgument,
                std::string(what) + " at " + range + " is outside the guest's memory of " +
                    std::to_string(totalBytes() >> 20) + " MiB",
                "give the VM more memory (memory.size)");
  }
  return *found;
}

void GuestMemory::clear(Bytes bytes) const noexcept {
  const auto zero = [](Bytes part) { std::fill(part.begin(), part.end(), std::uint8_t{0}); };
  const bool isShared = static_cast<bool>(file_);
  const std::uint64_t before = -reinterpret_cast<std::uintptr_t>(bytes.data()) % kHugePageBytes;
  if (isShared || bytes.size() < before + kHugePageBytes) {
    zero(bytes);
    return;
  }
  const std::uint64_t whole = (bytes.size() - before) / kHugePageBytes * kHugePageBytes;
  const Bytes middle = bytes.subspan(before, whole);
  zero(bytes.first(before));
  if (::madvise(middle.data(), middle.size(), MADV_DONTNEED) != 0) {
    zero(middle);
  }
  zero(bytes.subspan(before + whole));
}

void GuestMemory::write(std::uint64_t address, ConstBytes data, std::string_view what) {
  const Bytes target = require(address, data.size(), what);
  std::copy(data.begin(), data.end(), target.begin());
}

}  // namespace vmmhost::kvm::memory
