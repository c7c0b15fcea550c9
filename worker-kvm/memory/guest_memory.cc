#include "worker-kvm/memory/guest_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <string>

#include "vmmhost/error.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U  // Linux 6.3
#endif

namespace vmmhost::kvm::memory {

namespace {

// Size and seals before it is mapped: whoever shares it can rely on both.
Fd makeSealedMemfd(std::uint64_t bytes) {
  Fd memfd(::memfd_create("guest-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL));
  if (!memfd && errno == EINVAL) {
    memfd = Fd(::memfd_create("guest-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  }
  if (!memfd) {
    throw systemError("memfd_create for guest memory", errno);
  }
  // Written at its end instead of ftruncate, which a worker is not allowed: it could cut the files it was handed.
  const std::uint8_t zero = 0;
  if (::pwrite(memfd.get(), &zero, 1, static_cast<off_t>(bytes - 1)) != 1) {
    throw systemError("sizing the memfd of guest memory to " + std::to_string(bytes) + " bytes", errno);
  }
  if (::fcntl(memfd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    throw systemError("sealing the memfd of guest memory", errno);
  }
  return memfd;
}

// Huge pages of the host's and of the guest's page tables fall together only where both begin at a multiple of their
// size; ranges do (0 and 4 GiB), so their mappings must. Nothing if there is no room.
constexpr std::uint64_t kHugePageBytes = std::uint64_t{2} << 20;

std::optional<Bytes> mapAligned(std::uint64_t bytes, int kind, int descriptor) {
  // Room for the alignment first, then the memory itself over the middle of it; the ends go back.
  const std::uint64_t roomBytes = bytes + kHugePageBytes;
  void* room = ::mmap(nullptr, roomBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (room == MAP_FAILED) {
    return std::nullopt;
  }
  auto* const start = static_cast<std::uint8_t*>(room);
  const std::uint64_t before = -reinterpret_cast<std::uintptr_t>(start) % kHugePageBytes;
  auto* const aligned = start + before;
  if (::mmap(aligned, bytes, PROT_READ | PROT_WRITE, kind | MAP_NORESERVE | MAP_FIXED, descriptor, 0) == MAP_FAILED) {
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

GuestMemory::GuestMemory(std::span<const Range> ranges, bool shared) {
  regions_.reserve(ranges.size());  // so that nothing throws between a mapping and its owner
  for (const Range& range : ranges) {
    Fd memfd = shared ? makeSealedMemfd(range.bytes) : Fd();
    const int kind = shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
    const auto mapping = mapAligned(range.bytes, kind, memfd.get());
    if (!mapping) {
      const Error error = systemError("mapping " + std::to_string(range.bytes) + " bytes of guest memory", errno);
      for (const Region& region : regions_) {
        ::munmap(region.host.data(), region.host.size());
      }
      throw error;
    }
    // Where the host has them: fewer faults of the guest and of loading, and shorter walks ever after. A wish, no need.
    ::madvise(mapping->data(), mapping->size(), MADV_HUGEPAGE);
    regions_.push_back({range, *mapping, std::move(memfd)});
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
  const bool isShared = std::any_of(regions_.begin(), regions_.end(), [](const Region& one) { return one.memfd; });
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
