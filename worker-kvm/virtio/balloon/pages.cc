#include "worker-kvm/virtio/balloon/pages.h"

#include <algorithm>

namespace vmmhost::kvm::virtio::balloon {

namespace {

const memory::Range* regionOf(std::uint64_t address, std::span<const memory::GuestMemory::Region> regions) {
  for (const auto& region : regions) {
    if (address >= region.guest.start && region.guest.end() - region.guest.start >= kPageBytes &&
        address <= region.guest.end() - kPageBytes) {
      return &region.guest;
    }
  }
  return nullptr;
}

}  // namespace

std::size_t toRanges(std::span<std::uint32_t> numbers, std::span<const memory::GuestMemory::Region> regions,
                     std::vector<memory::Range>& ranges) {
  std::sort(numbers.begin(), numbers.end());
  std::size_t outside = 0;
  const memory::Range* region = nullptr;  // of the last range
  const std::size_t first = ranges.size();
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const std::uint64_t address = std::uint64_t{numbers[i]} * kPageBytes;
    if (i != 0 && numbers[i] == numbers[i - 1]) {
      continue;
    }
    const memory::Range* found = regionOf(address, regions);
    if (found == nullptr) {
      ++outside;
    } else if (found == region && ranges.size() > first && ranges.back().end() == address) {
      ranges.back().bytes += kPageBytes;
    } else {
      ranges.push_back({address, kPageBytes});
      region = found;
    }
  }
  return outside;
}

}  // namespace vmmhost::kvm::virtio::balloon
