// How much the state folder of a user can hold: what VMs and networks say and log is kept until `rm`.
#pragma once

#include <cstdint>
#include <string>

#include "host/runtime/directories.h"

namespace vmmhost::runtime {

// Of one generation of a log; there are two.
inline constexpr std::uint64_t kConsoleFileBytes = std::uint64_t{4} << 20;
inline constexpr std::uint64_t kLogFileBytes = std::uint64_t{1} << 20;
inline constexpr std::uint64_t kExitRecordBytes = std::uint64_t{1} << 20;

struct StateBounds {
  std::uint64_t consoleLogs = 0;
  std::uint64_t vmLog = 0;
  std::uint64_t exitRecord = 0;
  std::uint64_t vm = 0;  // all of that, of one VM or network
  std::uint64_t user = 0;
};
// Of a VM with so many consoles (1 if it names none); a network has none. `user`: $VMMHOST_STATE_LIMIT, such as "4G",
// else 16 GiB. Throws Error for a limit that is none.
StateBounds stateBounds(std::uint32_t consoles, Kind kind = Kind::kVm);

// Throws kResourceExhausted if what the folder holds, and what the VMs and networks that run may come to hold, leaves
// no room for `name` within the bounds: as far as others start at the same moment, they are not seen. Cheap for few
// entries.
void requireStateRoom(const Directories& directories, const EntryName& name, const StateBounds& bounds);

}  // namespace vmmhost::runtime
