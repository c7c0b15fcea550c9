// The bond of a process on its way into a jail with the one that starts it. Internal; async-signal-safe.
#pragma once

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace vmmhost::spawn {

// No signal comes from a parent that died before it was asked for, and its number cannot be seen from this PID
// namespace. Its pidfd (-1: none) is readable then, and the status pipe has no other end, unless another child of the
// parent has inherited it; but the pipe is gone before the parent's children are told, the pidfd only afterwards.
inline void requireParent(int status, int parent) noexcept {
  pollfd ends[] = {{status, 0, 0}, {parent, POLLIN, 0}};
  const timespec now = {};
  if (::syscall(SYS_ppoll, ends, 2, &now, nullptr, 8) != 0) {
    ::syscall(SYS_exit_group, 127);
  }
}

// False: the system call failed.
inline bool bindToParent(int status, int parent) noexcept {
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) {
    return false;
  }
  requireParent(status, parent);
  return true;
}

}  // namespace vmmhost::spawn
