// The PVH boot protocol: hvm_start_info in guest memory.
// Source: Xen's docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "worker-kvm/boot/memory_map.h"
#include "worker-kvm/memory/guest_memory.h"

namespace vmmhost::kvm::boot {

struct PvhInformation {
  std::optional<memory::Range> initrd;
  std::uint64_t rsdp = 0;  // 0: no ACPI
  std::span<const MapEntry> map;
};
// At arch::kStartInfo, kModuleList and kMemoryMap; the command line is at arch::kCommandLine.
void writeStartInfo(const PvhInformation& information, memory::GuestMemory& memory);

}  // namespace vmmhost::kvm::boot
