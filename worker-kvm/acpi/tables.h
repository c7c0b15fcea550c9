// The ACPI tables of a machine. Pure: from a description to bytes.
// Source: ACPI 6.5; table numbers in comments are its.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "worker-kvm/acpi/aml.h"
#include "worker-kvm/memory/guest_memory.h"

namespace vmmhost::kvm::acpi {

// What the Generic Event Device does when a bit of its register is set: Notify (`path`, `value`).
struct Event {
  std::uint8_t bits = 0;  // of the register at arch::kGedPort
  std::string path;       // e.g. "\\_SB.PWRB"
  std::uint8_t value = 0x80;
};

// Addresses and ports that are the same for every machine are those of arch/x86_64/layout.h.
struct MachineDescription {
  std::uint32_t cpus = 1;  // 1 to arch::kMaxCpus; APIC number = index
  // Windows of the PCI root bridge; the 64-bit one may be missing.
  memory::Range pciWindow32;
  std::optional<memory::Range> pciWindow64;
  bool serial = true;  // COM1
  // AML of devices that are no PCI devices (or of what PCI devices need besides their configuration space): terms that
  // stand in \_SB. A device contributes its own; nothing here knows which there are.
  std::vector<aml::Bytes> deviceTerms;
  // Beyond the power button, which has bit kPowerButtonEvent.
  std::vector<Event> events;
};

// Bit of the GED's register for the power button (devices::Ged).
inline constexpr std::uint8_t kPowerButtonEvent = 0x01;

struct Table {
  std::string signature;
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
};

struct Tables {
  // To be written at the address that they were built for; the RSDP (36 bytes) is first.
  std::vector<std::uint8_t> bytes;
  // Where each table is, for tests and tools.
  std::vector<Table> contents;
};

// RSDP, XSDT, FADT, MADT, MCFG, DSDT, at `address` (a multiple of 16). Throws kInvalidArgument when they need more than
// `maxBytes`, or the description contradicts itself.
Tables build(const MachineDescription& machine, std::uint64_t address, std::uint64_t maxBytes);

}  // namespace vmmhost::kvm::acpi
