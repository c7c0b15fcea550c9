// For a worker that starts programs of a read-only system root, such as qemu-system-x86_64 with a translating
// accelerator: files, processes, executable memory. No sockets but pairs, no locks, modes or owners, no namespaces.
//
// What these programs try and can do without fails with an errno; measured with QEMU 7.2 under this filter.
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cerrno>

#include "ipc/jail/seccomp/call_table.h"

namespace vmmhost::seccomp {
namespace {

constexpr std::uint64_t kNamespaces =
    CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;

void addFiles(Policy& policy) {
  allow(policy, {
                    kOpen,
                    __NR_openat,
                    kStat,
                    kLstat,
                    __NR_newfstatat,
                    __NR_statx,
                    __NR_statfs,
                    __NR_fstatfs,
                    kAccess,
                    __NR_faccessat,
                    __NR_faccessat2,
                    kReadlink,
                    __NR_readlinkat,
                    kGetdents,
                    __NR_getdents64,
                    __NR_getcwd,
                    __NR_chdir,
                    __NR_fchdir,
                    __NR_umask,
                    // in a private /tmp, if the plan has one: everything else is read-only
                    kUnlink,
                    __NR_unlinkat,
                    kMkdir,
                    __NR_mkdirat,
                    kRmdir,
                    kRename,
                    __NR_dup,
                    kDup2,
                    __NR_dup3,
                    kPipe,
                    __NR_pipe2,
                });
  addGivingBack(policy);
  // They tell or change what the page cache holds of a file, which other VMs may read as well. QEMU wants them for
  // migration alone.
  failWith(policy, ENOSYS, {__NR_fadvise64, __NR_readahead, __NR_mincore});
  failWith(policy, EOPNOTSUPP, {__NR_copy_file_range});
  failWith(policy, EPERM, {__NR_ftruncate});
  // QEMU finds no file locks and goes without: the host holds the disk's lock.
  allowValues(policy, __NR_fcntl, 1, {F_DUPFD, F_DUPFD_CLOEXEC, F_SETFL, F_ADD_SEALS, F_GET_SEALS});
  failWith(policy, EINVAL, {__NR_fcntl});
  allowValues(policy, __NR_ioctl, 1, {FIONREAD, FIOCLEX, BLKGETSIZE64, BLKSSZGET, BLKPBSZGET, BLKROGET, BLKFLSBUF});
  failWith(policy, ENOTTY, {__NR_ioctl});
}

void addMemory(Policy& policy, const BaseParameters& parameters) {
  allowIf(policy, __NR_mmap, {without(3, kUnboundedMemory)});
  failWith(policy, EPERM, {__NR_mmap});
  // What QEMU advises of its guest's memory, but for KSM: whether pages of two VMs are equal shows in their timing.
  allowValues(policy, __NR_madvise, 2,
              {MADV_WILLNEED, MADV_REMOVE, MADV_DONTFORK, MADV_DOFORK, MADV_NOHUGEPAGE, MADV_DONTDUMP, MADV_DODUMP});
  allow(policy, {__NR_mprotect, __NR_membarrier, __NR_get_mempolicy, __NR_msync});
  if (parameters.makesMemoryFiles) {
    addMemoryFiles(policy);
  }
  failWith(policy, EINVAL, {__NR_memfd_create});
  failWith(policy, EPERM, {__NR_set_mempolicy, __NR_mbind, __NR_mlock, __NR_mlock2, __NR_mlockall});
  failWith(policy, ENOSYS, {__NR_io_uring_setup, __NR_io_setup});
}

void addProcesses(Policy& policy, const BaseParameters& parameters) {
  allow(policy, {
                    kFork,
                    kVfork,
                    __NR_execve,
                    __NR_wait4,
                    __NR_waitid,
                    __NR_getppid,
                    __NR_getpgid,
                    kGetpgrp,
                    __NR_getsid,
                    __NR_setsid,
                    __NR_setpgid,
                    __NR_getgroups,
                    __NR_getresuid,
                    __NR_getresgid,
                    __NR_getpriority,
                    __NR_sched_getparam,
                    __NR_sched_getscheduler,
                    __NR_uname,
                    __NR_times,
                    // signals: only what is in its PID namespace can be named
                    __NR_kill,
                    __NR_tkill,
                    __NR_pidfd_open,
                    __NR_pidfd_send_signal,
                    __NR_rt_sigsuspend,
                    __NR_rt_sigtimedwait,
                    kPause,
                    kSelect,
                    __NR_pselect6,
                });
  if (parameters.makesEpolls) {
    allow(policy, {kEpollCreate});
  } else {
    failWith(policy, EMFILE, {kEpollCreate, __NR_epoll_create1});  // QEMU does without, and polls
  }
  // Processes. A thread is made as pthread_create makes it, or it could have a table of descriptors of its own.
  allowIf(policy, __NR_clone, {without(0, kNamespaces | CLONE_THREAD)});
  allowIf(policy, __NR_prctl, {equals32(0, PR_SET_TIMERSLACK)});
  failWith(policy, EINVAL, {__NR_prctl, __NR_seccomp});
  failWith(policy, EPERM, {__NR_setpriority, __NR_sched_setaffinity, __NR_sched_setscheduler, __NR_prlimit64});
}

void addPairs(Policy& policy) {
  // Streams only: a datagram socket, even one of a pair, can send to any socket that has a path.
  constexpr std::uint32_t kFlags = SOCK_CLOEXEC | SOCK_NONBLOCK;
  allowIf(policy, __NR_socketpair,
          {equals32(0, AF_UNIX), ArgCheck{1, 0xffffffffu & ~kFlags, SOCK_STREAM}, equals32(2, 0)});
  // Written to and read from only: what sends could send descriptors, of which the kernel counts those in flight by
  // user.
  allow(policy, {__NR_getsockname, __NR_getpeername});
  allowIf(policy, __NR_getsockopt, {equals32(1, SOL_SOCKET), equals32(2, SO_TYPE)});
  failWith(policy, EOPNOTSUPP, {__NR_setsockopt, __NR_getsockopt});
}

void addTapOfPrograms(Policy& policy) {
  addTap(policy);
  // QEMU asks what it was given, and sets the size of the header to what its guest has agreed on: a size of the frames
  // that pass between the two, which the host sets anew whenever it opens the device.
  allowValues(policy, __NR_ioctl, 1, {TUNGETIFF, TUNGETVNETHDRSZ, TUNSETVNETHDRSZ});
}

}  // namespace

Policy workerSystem(const BaseParameters& parameters) {
  Policy policy;
  policy.name = "worker-system";
  addThreadsAndMemoryBasics(policy);
  addEventLoop(policy, parameters);
  addDescriptorInput(policy);
  addSelfConfinement(policy);
  addExecutable(policy, parameters);
  addKvm(policy);
  addTapOfPrograms(policy);
  addFiles(policy);
  addMemory(policy, parameters);
  addProcesses(policy, parameters);
  addPairs(policy);
  return policy;
}

}  // namespace vmmhost::seccomp
