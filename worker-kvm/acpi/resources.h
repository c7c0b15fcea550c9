// Resource descriptors for _CRS.
// Source: ACPI 6.5, 6.4; section numbers in comments are its.
#pragma once

#include <cstdint>
#include <vector>

#include "worker-kvm/acpi/aml.h"
#include "worker-kvm/memory/guest_memory.h"

namespace vmmhost::kvm::acpi::aml {

// The buffer of a _CRS object: the descriptors and an end tag (6.4.2.9).
Bytes resourceTemplate(const std::vector<Bytes>& descriptors);

// Ports that a device answers at: exactly there, 16-bit decoding (6.4.2.5).
Bytes ioPorts(std::uint16_t first, std::uint8_t count);
// Memory that a device answers at, below 4 GiB (6.4.3.4).
Bytes memory32Fixed(const memory::Range& range);
// An edge of an active-high line that no other device has (6.4.3.6).
Bytes edgeInterrupt(std::uint32_t globalSystemInterrupt);

// What a bridge passes on to devices below it (6.4.3.5): fixed ranges, memory not cacheable, read and write.
Bytes wordBusNumbers(std::uint16_t first, std::uint16_t last);
Bytes wordIoWindow(const memory::Range& ports);
Bytes dwordMemoryWindow(const memory::Range& range);  // below 4 GiB
Bytes qwordMemoryWindow(const memory::Range& range);

}  // namespace vmmhost::kvm::acpi::aml
