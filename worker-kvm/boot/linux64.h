// Linux's 64-bit boot protocol: the zero page (struct boot_params), page tables and a descriptor table in guest memory.
// Source: Linux's Documentation/arch/x86/boot.rst and zero-page.rst.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "worker-kvm/boot/memory_map.h"
#include "worker-kvm/memory/guest_memory.h"

namespace vmmhost::kvm::boot {

struct LinuxInformation {
  // The bzImage's own bytes of its setup header, from 0x1f1 on (BzImage::setupHeader); empty for an ELF file, which has
  // none: the fields that a boot loader fills in are all that is there then.
  memory::ConstBytes setupHeader;
  std::uint32_t commandLineBytes = 0;   // at arch::kCommandLine, without its zero
  std::optional<memory::Range> initrd;  // below 4 GiB
  std::uint64_t rsdp = 0;               // 0: no ACPI
  std::span<const MapEntry> map;        // at most 128 entries
};
// At arch::kZeroPage, all 4096 bytes.
void writeZeroPage(const LinuxInformation& information, memory::GuestMemory& memory);

// At arch::kGdt and arch::kPageMapLevel4: what an entry of kind arch::EntryMode::kLinux64 runs with.
void writeLongModeTables(memory::GuestMemory& memory);

}  // namespace vmmhost::kvm::boot
