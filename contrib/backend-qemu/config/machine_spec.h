// What of a VmConfig this backend serves, in the terms of QEMU; everything else is refused by the field's name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "vmmhost/error.h"
#include "vmmhost/schema/vm.capnp.h"

namespace qemubackend {

struct DiskSpec {
  enum class Cache { kWriteback, kDirect, kUnsafe };
  enum class Format { kRaw, kQcow2 };
  std::uint32_t resource = 0;
  bool readOnly = false;
  std::string serial;
  Cache cache = Cache::kWriteback;
  Format format = Format::kRaw;
};

enum class ConsoleKind { kSerial, kVirtio };

struct NicSpec {
  std::string mac;        // empty before the host has chosen one: the plugin's view
  std::uint16_t mtu = 0;  // 0: not told to the guest
};

struct BalloonSpec {
  std::uint64_t targetBytes = 0;  // what the guest is asked to give up at first
  bool deflateOnOom = true;
  bool freePageReporting = false;
};

enum class WatchdogAction { kReset, kPowerOff };

struct MachineSpec {
  std::uint32_t kernelResource = 0;  // 0 before the host has opened the files: the plugin sees paths
  std::uint32_t initrdResource = 0;
  bool hasInitrd = false;
  std::string cmdline;
  std::uint32_t cpus = 1;
  std::uint32_t threadsPerCore = 1;
  std::uint32_t coresPerSocket = 1;
  std::uint64_t memoryBytes = 0;
  std::vector<DiskSpec> disks;
  std::vector<NicSpec> nics;
  std::vector<ConsoleKind> consoles = {ConsoleKind::kSerial};
  bool rng = false;
  std::optional<BalloonSpec> balloon;
  std::optional<WatchdogAction> watchdog;
  bool nestedVirtualization = false;
  bool kvm = false;  // platform.options accel=kvm
  std::string uuid;  // empty: none
};

inline constexpr std::uint32_t kMaxCpus = 64;
inline constexpr std::uint32_t kMaxDisks = 16;
inline constexpr std::uint32_t kMaxNics = 8;
inline constexpr std::uint32_t kMaxConsoles = 16;
inline constexpr std::uint32_t kMaxSerialConsoles = 4;  // of these; COM1 to COM4
inline constexpr std::uint64_t kMinMemoryBytes = std::uint64_t{8} << 20;

// Throws Error(kUnsupported) for what this backend does not serve and Error(kInvalidArgument) for what no backend
// could; both name the field. The plugin calls it before anything is started, the worker for what it is sent: neither
// relies on the other.
MachineSpec readConfig(vmmhost::schema::VmConfig::Reader config);

}  // namespace qemubackend
