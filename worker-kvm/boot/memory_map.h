// The memory map that a guest is told, in both boot protocols.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker-kvm/memory/guest_memory.h"

namespace vmmhost::kvm::boot {

// The numbers are those of E820 (ACPI 6.5, table 15.4) and of XEN_HVM_MEMMAP_TYPE.
enum class MapType : std::uint32_t { kUsable = 1, kReserved = 2 };

struct MapEntry {
  memory::Range range;
  MapType type = MapType::kReserved;

  bool operator==(const MapEntry&) const = default;
};

// `ranges` as of arch::memoryRanges: usable but for the PC's hole below 1 MiB, with PCI's configuration space reserved
// (PCI Firmware 3.3, 4.1.2). In ascending order, none overlapping.
std::vector<MapEntry> memoryMap(std::span<const memory::Range> ranges);

}  // namespace vmmhost::kvm::boot
