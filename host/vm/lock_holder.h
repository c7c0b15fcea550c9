// Who has a file locked by flock(), as far as the kernel tells.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "vmmhost/fd.h"

namespace vmmhost::vm {

struct HeldLock {
  pid_t pid = 0;  // of who asked for it; a child that inherited it may be who holds it still
  dev_t device = 0;
  ino_t inode = 0;
};

// The locks that are held, of the text of /proc/locks; not those that are waited for, nor record locks.
std::vector<HeldLock> parseHeldLocks(std::string_view locks);

// "process 12 (name)", or "processes 12 (name), 13 (name) and 4 more"; empty where nobody is found, such as a holder of
// another PID namespace. `file` is an open file.
std::string lockHolders(const Fd& file);

}  // namespace vmmhost::vm
