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

}  // namespace

std::optional<Bytes> part(Bytes whole, std::uint64_t offset, std::uint64_t bytes) noexcept {
  if (offset > whole.size() || bytes > whole.size() - offset) {
    return std::nullopt;
  }
  return whole.subspan(static_cast<std::size_t>(offset), static_cast<std::size_t>(bytes));
}

GuestMemory::GuestMemory(std::span<const Range> ranges, bool shared) {
  regions_.reserve(ranges.size());  // so that nothing throws between a mapping and its owner
  for (const Range& range : ranges) {
    Fd memfd = shared ? makeSealedMemfd(range.bytes) : Fd();
    const int kind = shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
    void* mapping = ::mmap(nullptr, range.bytes, PROT_READ | PROT_WRITE, kind | MAP_NORESERVE, memfd.get(), 0);
    if (mapping == MAP_FAILED) {
      const Error error = systemError("mapping " + std::to_string(range.bytes) + " bytes of guest memory", errno);
      for (const Region& region : regions_) {
        ::munmap(region.host.data(), region.host.size());
      }
      throw error;
    }
    regions_.push_back({range, {static_cast<std::uint8_t*>(mapping), range.bytes}, std::move(memfd)});
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

std::optional<Bytes> GuestMemory::at(std::uint64_t address, std::uint64_t bytes) const noexcept {
  for (const Region& region : regions_) {
    if (address >= region.guest.start && address - region.guest.start <= region.guest.bytes) {
      if (auto found = part(region.host, address - region.guest.start, bytes)) {
        return found;
      }
    }
  }
  return std::nullopt;
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

void GuestMemory::write(std::uint64_t address, ConstBytes data, std::string_view what) {
  const Bytes target = require(address, data.size(), what);
  std::copy(data.begin(), data.end(), target.begin());
}

}  // namespace vmmhost::kvm::memory
