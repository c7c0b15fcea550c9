// The memory of a guest: host mappings at guest-physical addresses, and bounds-checked access to them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "vmmhost/fd.h"

namespace vmmhost::kvm::memory {

using Bytes = std::span<std::uint8_t>;
using ConstBytes = std::span<const std::uint8_t>;

// A range of guest-physical addresses [start, start + bytes). `bytes` is not 0 and the end does not overflow.
struct Range {
  std::uint64_t start = 0;
  std::uint64_t bytes = 0;

  std::uint64_t end() const noexcept { return start + bytes; }
  bool overlaps(const Range& other) const noexcept { return start < other.end() && other.start < end(); }
  bool operator==(const Range&) const = default;
};

// The part [offset, offset + bytes) of `whole`, or nothing if it is not entirely inside.
inline std::optional<Bytes> part(Bytes whole, std::uint64_t offset, std::uint64_t bytes) noexcept {
  if (offset > whole.size() || bytes > whole.size() - offset) {
    return std::nullopt;
  }
  return whole.subspan(static_cast<std::size_t>(offset), static_cast<std::size_t>(bytes));
}

class GuestMemory {
 public:
  // Private anonymous memory, not reserved in advance, or the bytes of `file`, the ranges in it one behind the other,
  // which another process can map too. Either begins at a multiple of 2 MiB, and huge pages are asked for; the
  // 2 MiB at address 0 become one only later, if the kernel finds that worth it. Throws Error.
  explicit GuestMemory(std::span<const Range> ranges, Fd file = Fd());
  ~GuestMemory();
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;

  struct Region {
    Range guest;
    Bytes host;
    std::uint64_t fileOffset;
  };
  std::span<const Region> regions() const noexcept { return regions_; }
  int file() const noexcept { return file_.get(); }  // -1: private memory
  // Bytes of all regions together.
  std::uint64_t totalBytes() const noexcept;

  // The host's view of [address, address + bytes), or nothing if that is not entirely inside one region. The guest may
  // change the bytes at any time while it runs.
  std::optional<Bytes> at(std::uint64_t address, std::uint64_t bytes) const noexcept {
    for (const Region& region : regions_) {
      if (address >= region.guest.start && address - region.guest.start <= region.guest.bytes) {
        if (auto found = part(region.host, address - region.guest.start, bytes)) {
          return found;
        }
      }
    }
    return std::nullopt;
  }
  // The same; throws kInvalidArgument that names `what` and the range.
  Bytes require(std::uint64_t address, std::uint64_t bytes, std::string_view what) const;
  void write(std::uint64_t address, ConstBytes data, std::string_view what);
  // Makes bytes of one region zero. Whole pages of private memory are given back: that many cost little, and take no
  // memory until they are used. Any thread; allocates nothing.
  void clear(Bytes bytes) const noexcept;

 private:
  Fd file_;
  std::vector<Region> regions_;
};

}  // namespace vmmhost::kvm::memory
