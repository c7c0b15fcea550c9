// What base policies have besides for processes that set up a network of their own, and for those that start programs.
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <csignal>

#include "ipc/jail/seccomp/call_table.h"

namespace vmmhost::seccomp {

void addSetupStage(Policy& policy, std::uint64_t capabilities) {
  // Sets of capabilities become smaller only: the bounding set is empty from the start, securebits are locked, and none
  // is raised into the ambient set.
  allow(policy, {__NR_capget, __NR_capset});
  allowValues(policy, __NR_prctl, 0, {PR_CAPBSET_READ, PR_GET_SECUREBITS});
  allowIf(policy, __NR_prctl, {equals32(0, PR_CAP_AMBIENT), equals64(1, PR_CAP_AMBIENT_IS_SET)});
  allowIf(policy, __NR_prctl, {equals32(0, PR_CAP_AMBIENT), equals64(1, PR_CAP_AMBIENT_CLEAR_ALL)});
  if ((capabilities & (std::uint64_t{1} << CAP_NET_ADMIN)) != 0) {
    // To the kernel alone, which is where what is written to it goes as long as it is neither bound nor connected.
    allowIf(policy, __NR_socket,
            {equals32(0, AF_NETLINK), ArgCheck{1, 0xffffffffu & ~(SOCK_CLOEXEC | SOCK_NONBLOCK), SOCK_RAW},
             equals32(2, NETLINK_ROUTE)});
  }
}

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
