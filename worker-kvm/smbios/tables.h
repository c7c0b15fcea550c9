// The SMBIOS tables of a machine: who it is. Pure: from a description to bytes.
// Source: SMBIOS (DMTF DSP0134) 3.7; numbers in comments are its clauses.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace vmmhost::kvm::smbios {

// As RFC 9562 writes it, first byte first.
using Uuid = std::array<std::uint8_t, 16>;

// "01234567-89ab-cdef-0123-456789abcdef", in either case, and nothing else; std::nullopt otherwise.
std::optional<Uuid> parseUuid(std::string_view text);

struct MachineDescription {
  std::optional<Uuid> uuid;  // none: "not present" (7.2.1)
  std::string version;       // of this program, printable ASCII, at most 64 bytes
  std::uint32_t cpus = 1;
  std::uint64_t memoryBytes = 0;
};

// A 64-bit (3.0) entry point followed by the structures, to be written at `address` (a multiple of 16). Throws
// kInvalidArgument when they need more than `maxBytes`.
std::vector<std::uint8_t> build(const MachineDescription& machine, std::uint64_t address, std::uint64_t maxBytes);

}  // namespace vmmhost::kvm::smbios
