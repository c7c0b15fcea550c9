// What every backend asks of a VmConfig, checked before anything is started.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "vmmhost/schema/vm.capnp.h"

namespace vmmhost::config {

inline constexpr std::uint32_t kMaxCpus = 254;                       // xAPIC identifiers
inline constexpr std::uint64_t kMinMemory = std::uint64_t{1} << 20;  // 1 MiB
inline constexpr std::uint64_t kMaxMemory = std::uint64_t{1} << 40;  // 1 TiB
inline constexpr std::size_t kMaxNameBytes = 64;
inline constexpr std::size_t kMaxCmdlineBytes = 2047;
inline constexpr std::uint32_t kMaxDisks = 64;
inline constexpr std::uint32_t kMaxConsoles = 8;

// Names become file names and socket paths. Throws Error(kInvalidArgument) that shows the name with control
// characters escaped, shortened if long.
void validateVmName(std::string_view name);
// The same for a network's.
void validateNetworkName(std::string_view name);

// Throws Error(kInvalidArgument) naming the field: a kernel or firmware must be there (not both), counts and sizes in
// range (memory a multiple of 4 KiB), ids unique, text bounded and printable, MAC and UUID well formed. The name may
// be empty (the host makes one up).
void validateVmConfig(schema::VmConfig::Reader config);

}  // namespace vmmhost::config
