// Every guest-physical address, I/O port and interrupt number that this VMM decides on, in one place.
// The lower megabyte follows what Firecracker, Cloud Hypervisor, crosvm and libkrun agree on.
//
//   0 - 640 KiB        usable; boot information, page tables and the command line in it
//   640 KiB - 1 MiB    reserved; ACPI and SMBIOS tables and the reset vector in it
//   1 MiB - 3 GiB      usable, as far as memory goes
//   3 GiB - 4 GiB      devices: the 32-bit PCI window, ECAM, I/O APIC, local APICs
//   4 GiB -            usable, the rest of memory
//   after memory       the 64-bit PCI window
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "worker-kvm/memory/guest_memory.h"

namespace vmmhost::kvm::arch {

inline constexpr std::uint64_t kPageBytes = 4096;

// Boot information in low memory.
// A global descriptor table for the 64-bit entry of the Linux boot protocol (Firecracker, Cloud Hypervisor, libkrun).
inline constexpr std::uint64_t kGdt = 0x500;
inline constexpr std::uint16_t kGdtBytes = 32;            // two empty descriptors, then those of boot.rst:
inline constexpr std::uint16_t kBootCodeSelector = 0x10;  // __BOOT_CS
inline constexpr std::uint16_t kBootDataSelector = 0x18;  // __BOOT_DS
inline constexpr std::uint16_t kBootTaskSelector = 0x20;  // never loaded from the table
// hvm_start_info and its module list (Firecracker, Cloud Hypervisor, libkrun: the same).
inline constexpr std::uint64_t kStartInfo = 0x6000;
inline constexpr std::uint64_t kModuleList = 0x6040;
// The zero page of the Linux boot protocol (all four), or for PVH the hvm_memmap_table_entry array: a page.
inline constexpr std::uint64_t kZeroPage = 0x7000;
inline constexpr std::uint64_t kMemoryMap = kZeroPage;
// The stack of the 64-bit entry: grows down from here (all four).
inline constexpr std::uint64_t kBootStack = 0x8ff0;
// Page tables of the 64-bit entry: one page of each upper level, four page directories for 4 GiB of 2 MiB pages
// (Firecracker, crosvm and libkrun begin at the same place and map 1 GiB).
inline constexpr std::uint64_t kPageMapLevel4 = 0x9000;
inline constexpr std::uint64_t kPageDirectoryPointers = 0xa000;
inline constexpr std::uint64_t kPageDirectories = 0xb000;
inline constexpr std::uint64_t kPageTablesEnd = 0xf000;
// Kernel command line (all four); the schema's limit is 2047 bytes and a zero.
inline constexpr std::uint64_t kCommandLine = 0x20000;
inline constexpr std::uint64_t kCommandLineMaxBytes = 2048;

// Usable memory ends where a PC has its extended BIOS data area (Firecracker, libkrun) ...
inline constexpr std::uint64_t kLowMemoryEnd = 0x9fc00;
// ... and goes on at 1 MiB (all four): kernels load there or above.
inline constexpr std::uint64_t kHighMemoryStart = 0x100000;

// ACPI tables, the RSDP first (Firecracker, crosvm and libkrun have it there; ACPI 6.5, 5.2.5.1: at a multiple of 16
// between 0xe0000 and 0xfffff, so that a guest that is told nothing finds it too).
inline constexpr std::uint64_t kAcpiStart = 0xe0000;
inline constexpr std::uint64_t kAcpiBytes = 0x10000;
inline constexpr std::uint64_t kRsdp = kAcpiStart;
// SMBIOS entry point and structures (Cloud Hypervisor, crosvm; SMBIOS 3.7, 5.2.2: at a multiple of 16 between 0xf0000
// and 0xfffff).
inline constexpr std::uint64_t kSmbiosStart = 0xf0000;
inline constexpr std::uint64_t kSmbiosBytes = 0xfff0;
// Where a PC's firmware begins, and where Linux jumps to in real mode when it reboots and knows no better way: with
// hardware-reduced ACPI it asks UEFI, and where there is none, this (arch/x86/kernel/reboot.c).
inline constexpr std::uint64_t kResetVector = 0xffff0;

// Memory below 4 GiB ends at 3 GiB (Firecracker, Cloud Hypervisor); devices have the gap, the rest follows at 4 GiB.
inline constexpr std::uint64_t kDeviceGapStart = 0xc0000000;
inline constexpr std::uint64_t kDeviceGapEnd = 0x100000000;
// BARs of PCI devices below 4 GiB: 640 MiB (Cloud Hypervisor: the same).
inline constexpr std::uint64_t kPciWindow32Start = kDeviceGapStart;
inline constexpr std::uint64_t kPciWindow32Bytes = 0x28000000;
// PCI configuration space (Cloud Hypervisor: the same base). One bus: its scan is what PCI costs at boot.
inline constexpr std::uint64_t kEcamStart = 0xe8000000;
inline constexpr std::uint64_t kEcamBytes = 0x100000;
inline constexpr std::uint8_t kPciLastBus = 0;
// Where a PC has them (all four).
inline constexpr std::uint64_t kIoApicStart = 0xfec00000;
inline constexpr std::uint64_t kIoApicBytes = 0x1000;
inline constexpr std::uint64_t kLocalApicStart = 0xfee00000;
inline constexpr std::uint64_t kLocalApicBytes = 0x1000;
// Identity-map page and three task-state pages for KVM_SET_IDENTITY_MAP_ADDR and KVM_SET_TSS_ADDR (Firecracker,
// libkrun: the latter at 0xfffbd000; api.rst asks for a place below 4 GiB that no memory slot touches).
inline constexpr std::uint32_t kIdentityMap = 0xfffbc000;
inline constexpr std::uint32_t kTaskState = 0xfffbd000;
static_assert(kPciWindow32Start + kPciWindow32Bytes <= kEcamStart && kEcamStart + kEcamBytes <= kIoApicStart);

// I/O ports.
inline constexpr std::uint16_t kKeyboardDataPort = 0x60;  // i8042
inline constexpr std::uint16_t kKeyboardCommandPort = 0x64;
inline constexpr std::uint8_t kKeyboardReset = 0xfe;   // a command: pulse the line that resets processors
inline constexpr std::uint16_t kBootTimerPort = 0x80;  // Cloud Hypervisor's debug port (its docs/debug-port.md)
inline constexpr std::uint16_t kSerialPort = 0x3f8;    // COM1 of a PC
inline constexpr std::uint16_t kSerialPorts = 8;
inline constexpr std::uint16_t kPowerPort = 0x600;      // Cloud Hypervisor's ACPI sleep control and status register
inline constexpr std::uint16_t kGedPort = 0x608;        // events of the Generic Event Device: one byte
inline constexpr std::uint16_t kPciConfigPort = 0xcf8;  // PCI Local Bus 3.0, 3.2.2.3.2: address and data
inline constexpr std::uint16_t kPciConfigPorts = 8;
// BARs of PCI devices in I/O space: all of the rest, as on a PC.
inline constexpr std::uint32_t kPciPortsStart = 0xc000;
inline constexpr std::uint32_t kPciPorts = 0x4000;

// Global system interrupts: pins of the I/O APIC. Edges, active high.
inline constexpr std::uint32_t kIoApicPins = 24;      // KVM reserves interrupt routes for these (all four: 24)
inline constexpr std::uint32_t kSerialInterrupt = 4;  // as COM1 of a PC
inline constexpr std::uint32_t kGedInterrupt = 5;

inline constexpr std::uint32_t kMaxCpus = 64;

// Where memory of this size is: up to 3 GiB from 0, the rest from 4 GiB. `bytes` is a multiple of the page size.
inline std::vector<memory::Range> memoryRanges(std::uint64_t bytes) {
  if (bytes <= kDeviceGapStart) {
    return {{0, bytes}};
  }
  return {{0, kDeviceGapStart}, {kDeviceGapEnd, bytes - kDeviceGapStart}};
}

// The 64-bit window for BARs of PCI devices: behind memory, at a multiple of 1 GiB, at most 64 GiB long, and within
// what the guest's processors can address (CPUID 0x80000008, EAX bits 0 to 7). Nothing if less than 1 GiB is left
// there.
inline constexpr std::uint64_t kPciWindow64MaxBytes = std::uint64_t{64} << 30;
inline std::optional<memory::Range> pciWindow64(std::uint64_t memoryBytes, std::uint32_t physicalAddressBits) {
  constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
  const std::uint64_t memoryEnd = std::max(memoryRanges(memoryBytes).back().end(), kDeviceGapEnd);
  const std::uint64_t start = (memoryEnd + kGiB - 1) & ~(kGiB - 1);
  const std::uint64_t limit = std::uint64_t{1} << std::min(physicalAddressBits, std::uint32_t{52});
  if (limit < kGiB || start > limit - kGiB) {
    return std::nullopt;
  }
  return memory::Range{start, std::min(limit - start, kPciWindow64MaxBytes)};
}

}  // namespace vmmhost::kvm::arch
