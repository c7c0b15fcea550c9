// Cleans up after a supervisor that is gone.
#pragma once

#include "host/runtime/name_lock.h"

namespace vmmhost::runtime {

// What the state of something reaped is to become.
enum class ReapState {
  kByRecord,  // removed if the record says removeOnEnd, else kept with an exit.json
  kRemove,
};

// `lock` is held and nobody lives. Ends and removes what the record names, settles the state, empties the runtime
// folder but for its lock file. Each step may be the last before this process dies: the next command does the rest.
// Throws kFailedPrecondition if a cgroup stays (then the record stays), or what writing throws.
void reap(const Directories& directories, const EntryName& name, const NameLock& lock, ReapState state);

}  // namespace vmmhost::runtime
