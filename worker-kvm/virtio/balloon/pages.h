// Page numbers as a driver names them, made ranges of guest memory: a pure function.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker-kvm/memory/guest_memory.h"

namespace vmmhost::kvm::virtio::balloon {

// virtio 1.2, 5.5.6: pages are of this size whatever the system's are.
inline constexpr std::uint64_t kPageBytes = 4096;

// Appends to `ranges` the pages of `numbers` that lie in `memory` entirely, each once, neighbours as one range, in
// order and none across regions. Sorts `numbers`. Returns how many lie elsewhere.
std::size_t toRanges(std::span<std::uint32_t> numbers, std::span<const memory::GuestMemory::Region> regions,
                     std::vector<memory::Range>& ranges);

}  // namespace vmmhost::kvm::virtio::balloon
