// Every guest-physical address and I/O port that this VMM decides on, in one place.
// The lower megabyte follows what Firecracker, Cloud Hypervisor, crosvm and libkrun agree on.
#pragma once

#include <cstdint>
#include <vector>

#include "worker-kvm/memory/guest_memory.h"

namespace vmmhost::kvm::arch {

// hvm_start_info and its module list (Firecracker, Cloud Hypervisor, libkrun: the same).
inline constexpr std::uint64_t kStartInfo = 0x6000;
inline constexpr std::uint64_t kModuleList = 0x6040;
// hvm_memmap_table_entry array (the zero page of the Linux boot protocol in all four).
inline constexpr std::uint64_t kMemoryMap = 0x7000;
// Kernel command line (all four); the schema's limit is 2047 bytes and a zero.
inline constexpr std::uint64_t kCommandLine = 0x20000;
inline constexpr std::uint64_t kCommandLineMaxBytes = 2048;
// Usable memory ends where a PC has its extended BIOS data area (Firecracker, libkrun) ...
inline constexpr std::uint64_t kLowMemoryEnd = 0x9fc00;
// ... and goes on at 1 MiB (all four): kernels load there or above.
inline constexpr std::uint64_t kHighMemoryStart = 0x100000;
// Memory below 4 GiB ends at 3 GiB (Firecracker, Cloud Hypervisor); devices have the gap, the rest follows at 4 GiB.
inline constexpr std::uint64_t kDeviceGapStart = 0xc0000000;
inline constexpr std::uint64_t kDeviceGapEnd = 0x100000000;
// Identity-map page and three task-state pages for KVM_SET_IDENTITY_MAP_ADDR and KVM_SET_TSS_ADDR (Firecracker,
// libkrun: the latter at 0xfffbd000; api.rst asks for a place below 4 GiB that no memory slot touches).
inline constexpr std::uint32_t kIdentityMap = 0xfffbc000;
inline constexpr std::uint32_t kTaskState = 0xfffbd000;

// I/O ports.
inline constexpr std::uint16_t kSerialPort = 0x3f8;       // COM1 of a PC, 8 ports
inline constexpr std::uint32_t kSerialInterrupt = 4;      // its ISA interrupt
inline constexpr std::uint16_t kKeyboardDataPort = 0x60;  // i8042
inline constexpr std::uint16_t kKeyboardCommandPort = 0x64;
inline constexpr std::uint16_t kPowerPort = 0x600;  // Cloud Hypervisor's ACPI sleep control register
// Pins of the I/O APIC that KVM reserves interrupt routes for (all four: 24).
inline constexpr std::uint32_t kIoApicPins = 24;

inline constexpr std::uint64_t kPageBytes = 4096;

// Where memory of this size is: up to 3 GiB from 0, the rest from 4 GiB. `bytes` is a multiple of the page size.
inline std::vector<memory::Range> memoryRanges(std::uint64_t bytes) {
  if (bytes <= kDeviceGapStart) {
    return {{0, bytes}};
  }
  return {{0, kDeviceGapStart}, {kDeviceGapEnd, bytes - kDeviceGapStart}};
}

}  // namespace vmmhost::kvm::arch
