#include "worker-kvm/boot/memory_map.h"

#include "worker-kvm/arch/x86_64/layout.h"

namespace vmmhost::kvm::boot {

std::vector<MapEntry> memoryMap(std::span<const memory::Range> ranges) {
  std::vector<MapEntry> map;
  for (const memory::Range& range : ranges) {
    if (range.start == 0) {
      map.push_back({{0, arch::kLowMemoryEnd}, MapType::kUsable});
      map.push_back({{arch::kLowMemoryEnd, arch::kHighMemoryStart - arch::kLowMemoryEnd}, MapType::kReserved});
      map.push_back({{arch::kHighMemoryStart, range.end() - arch::kHighMemoryStart}, MapType::kUsable});
      map.push_back({{arch::kEcamStart, arch::kEcamBytes}, MapType::kReserved});
    } else {
      map.push_back({range, MapType::kUsable});
    }
  }
  return map;
}

}  // namespace vmmhost::kvm::boot
