// What the kvm backend serves of a VM's configuration. Shared by the plugin, which refuses before anything is started,
// and by the worker, which trusts nobody.
#pragma once

#include <cstdint>

#include "vmmhost/schema/vm.capnp.h"

namespace vmmhost::kvm::config {

inline constexpr std::uint32_t kMaxCpus = 64;
inline constexpr std::uint64_t kMinMemoryBytes = std::uint64_t{2} << 20;
inline constexpr std::uint64_t kMaxMemoryBytes = std::uint64_t{1} << 40;

// Throws kUnsupported for a field that the backend does not serve and kInvalidArgument for a value that it cannot take;
// the message names the field as JSON does (e.g. "disks[0]", "memory.hugePages").
void check(schema::VmConfig::Reader config);

// platform.options of a checked configuration: "irqchip" is "split" (default) or "full".
bool wantsFullIrqchip(schema::VmConfig::Reader config);

}  // namespace vmmhost::kvm::config
