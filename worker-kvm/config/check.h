// What the kvm backend serves of a VM's configuration. Shared by the plugin, which refuses before anything is started,
// and by the worker, which trusts nobody.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "vmmhost/schema/vm.capnp.h"

namespace vmmhost::kvm::config {

inline constexpr std::uint32_t kMaxCpus = 64;
inline constexpr std::uint64_t kMinMemoryBytes = std::uint64_t{2} << 20;
inline constexpr std::uint64_t kMaxMemoryBytes = std::uint64_t{1} << 40;

// Throws kUnsupported for a field that the backend does not serve and kInvalidArgument for a value that it cannot take;
// the error has the field as JSON names it (e.g. "disks[0]", "memory.hugePages"), and its message begins with it.
void check(schema::VmConfig::Reader config);

// The queues that each disk has, for as many virtual CPUs, while there are rings for them: a thread and a ring each. Of
// a checked configuration.
std::uint32_t queuesPerDisk(schema::VmConfig::Reader config);

// What a worker for a checked configuration starts with: an instance of epoll for the control thread, and one for each
// thread of a device.
std::uint32_t epolls(schema::VmConfig::Reader config);

// The descriptors that it needs at most, without those of vsock connections, which come behind them.
std::uint32_t descriptors(schema::VmConfig::Reader config);

// "52:54:00:12:34:56", the address of one card, not of a group; else nothing.
std::optional<std::array<std::uint8_t, 6>> parseMac(std::string_view text);

// platform.options of a checked configuration: "irqchip" is "split" (default) or "full".
bool wantsFullIrqchip(schema::VmConfig::Reader config);

}  // namespace vmmhost::kvm::config
