// What base policies have besides for processes that start programs.
#include <fcntl.h>
#include <sched.h>

#include <csignal>

#include "ipc/jail/seccomp/call_table.h"

namespace vmmhost::seccomp {

void addProgramsByDescriptor(Policy& policy, int first, unsigned count) {
  // An absolute path makes the descriptor meaningless, and is in memory: Landlock says what it may lead to.
  for (unsigned index = 0; index < count; ++index) {
    allowIf(policy, __NR_execveat,
            {equals32(0, static_cast<std::uint32_t>(first) + index), equals32(4, AT_EMPTY_PATH)});
  }
  // Children as C libraries make them, by fork() and for posix_spawn(): neither siblings, nor namespaces, nor groups.
  for (const std::uint64_t flags :
       {std::uint64_t{SIGCHLD}, std::uint64_t{SIGCHLD | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID},
        std::uint64_t{SIGCHLD | CLONE_VM | CLONE_VFORK}}) {
    allowIf(policy, __NR_clone, {equals64(0, flags)});
  }
  // kill() reaches what is in its PID namespace.
  allow(policy, {kFork, kVfork, __NR_wait4, __NR_waitid, __NR_kill});
}

}  // namespace vmmhost::seccomp
