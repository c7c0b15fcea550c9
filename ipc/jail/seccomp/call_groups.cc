#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <csignal>

#include "ipc/jail/seccomp/call_table.h"

namespace vmmhost::seccomp {
namespace {

constexpr std::uint32_t kArchSetFs = 0x1002;          // asm/prctl.h
constexpr std::uint32_t kCloneDetached = 0x00400000;  // ignored by the kernel; musl sets it

}  // namespace

void allow(Policy& policy, std::initializer_list<std::uint32_t> numbers) {
  for (const std::uint32_t number : numbers) {
    allowIf(policy, number, {});
  }
}

void allowIf(Policy& policy, std::uint32_t number, std::initializer_list<ArgCheck> checks) {
  if (number != kAbsent) {
    policy.allow.push_back(Rule{number, checks});
  }
}

void allowValues(Policy& policy, std::uint32_t number, std::uint8_t index,
                 std::initializer_list<std::uint32_t> values) {
  for (const std::uint32_t value : values) {
    allowIf(policy, number, {equals32(index, value)});
  }
}

void failWith(Policy& policy, int errnoValue, std::initializer_list<std::uint32_t> numbers) {
  for (const std::uint32_t number : numbers) {
    if (number != kAbsent) {
      policy.fail.push_back(ErrnoRule{number, static_cast<std::uint16_t>(errnoValue)});
    }
  }
}

namespace {

void addThreadsAndMemoryBasics(Policy& policy) {
  allow(policy, {
                    // heap
                    __NR_brk,
                    __NR_munmap,
                    __NR_mremap,
                    // threads; tgkill reaches only what its PID namespace holds
                    __NR_futex,
                    __NR_set_robust_list,
                    __NR_get_robust_list,
                    __NR_set_tid_address,
                    __NR_rseq,
                    __NR_sched_yield,
                    __NR_sched_getaffinity,
                    __NR_gettid,
                    __NR_getpid,
                    __NR_tgkill,
                    // signals
                    __NR_rt_sigaction,
                    __NR_rt_sigprocmask,
                    __NR_rt_sigreturn,
                    __NR_rt_sigpending,
                    __NR_sigaltstack,
                    __NR_restart_syscall,
                    // who and what it is
                    __NR_getuid,
                    __NR_geteuid,
                    __NR_getgid,
                    __NR_getegid,
                    __NR_getrandom,
                    __NR_getrusage,
                    kGetrlimit,
                    __NR_sysinfo,
                    // leaving
                    __NR_exit,
                    __NR_exit_group,
                });
  // What a C library and ours advise, by number: others have the kernel look for equal pages, write pages out or read
  // ahead. Advice that is refused does no harm.
  allowValues(policy, __NR_madvise, 2, {MADV_DONTNEED, MADV_FREE, MADV_HUGEPAGE});
  failWith(policy, EINVAL, {__NR_madvise});
  // pthread_create, exactly as C libraries call it: neither a process nor a namespace comes of it.
  allowIf(policy, __NR_clone,
          {ArgCheck{0, ~std::uint64_t{kCloneDetached},
                    CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
                        CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID}});
  // Its flags are in memory, where no filter sees them; libraries fall back to clone.
  failWith(policy, ENOSYS, {__NR_clone3});
  // Start-up of a thread or a program; newer libraries ask for shadow stacks first and do without.
  if (kArchPrctl != kAbsent) {
    allowIf(policy, kArchPrctl, {equals32(0, kArchSetFs)});
    failWith(policy, EINVAL, {kArchPrctl});
  }
  allowIf(policy, __NR_prlimit64, {equals32(0, 0), equals64(2, 0)});  // reading its own
}

void addEventLoop(Policy& policy) {
  allow(policy, {
                    __NR_epoll_ctl,
                    kEpollWait,
                    __NR_epoll_pwait,
                    __NR_epoll_pwait2,
                    kPoll,
                    __NR_ppoll,
                    __NR_eventfd2,
                    __NR_signalfd4,
                    __NR_timerfd_create,
                    __NR_timerfd_settime,
                    __NR_timerfd_gettime,
                    __NR_clock_gettime,
                    __NR_clock_getres,
                    __NR_clock_nanosleep,
                    __NR_nanosleep,
                    __NR_gettimeofday,
                    kTime,
                });
}

void addDescriptorInput(Policy& policy) {
  allow(policy, {
                    __NR_read,
                    __NR_write,
                    __NR_readv,
                    __NR_writev,
                    __NR_pread64,
                    __NR_pwrite64,
                    __NR_preadv,
                    __NR_pwritev,
                    __NR_lseek,
                    __NR_fsync,
                    __NR_fdatasync,
                    __NR_close,
                    __NR_fstat,
                    __NR_recvmsg,
                    __NR_shutdown,
                });
  // With flags a thread could go on with a table of descriptors that nobody outside sees.
  allowIf(policy, __NR_close_range, {equals32(2, 0)});
  failWith(policy, EINVAL, {__NR_close_range});
  // Neither locks, leases nor owners: they act on the host's side of an open file description. Not F_SETFL either.
  allowValues(policy, __NR_fcntl, 1, {F_GETFL, F_GETFD, F_SETFD});
  allowIf(policy, __NR_recvfrom, {equals64(4, 0)});  // recv()
  // Not SO_PEERPIDFD, which hands out a descriptor for the host's process.
  allowIf(policy, __NR_getsockopt, {equals32(1, SOL_SOCKET), equals32(2, SO_SNDBUF)});
  allowIf(policy, __NR_getsockopt, {equals32(1, SOL_SOCKET), equals32(2, SO_ERROR)});
  allowValues(policy, __NR_fcntl, 1, {F_ADD_SEALS, F_GET_SEALS});  // of what it was given, which has all its seals
  // fstat() as glibc makes it. A path that comes with it leads nowhere in an empty root.
  allowIf(policy, __NR_newfstatat, {equals32(3, AT_EMPTY_PATH)});
}

void addDataMemory(Policy& policy) {
  // No memory ever becomes executable: the kernel maps a static executable's code itself, at exec. Shared anonymous
  // memory would escape the limits on private data, so that only descriptors are mapped shared.
  allowIf(policy, __NR_mmap, {without(2, PROT_EXEC), ArgCheck{3, MAP_TYPE | kUnboundedMemory, MAP_PRIVATE}});
  allowIf(policy, __NR_mmap, {without(2, PROT_EXEC), without(3, MAP_ANONYMOUS | kUnboundedMemory)});
  allowIf(policy, __NR_mprotect, {without(2, PROT_EXEC)});
}

void addSelfConfinement(Policy& policy) {
  allowValues(policy, __NR_prctl, 0, {PR_SET_NAME, PR_GET_DUMPABLE, PR_GET_NO_NEW_PRIVS});
  allowIf(policy, __NR_prctl, {equals32(0, PR_SET_DUMPABLE), equals64(1, 0)});
  allowIf(policy, __NR_prctl, {equals32(0, PR_SET_NO_NEW_PRIVS), equals64(1, 1)});
  allowIf(policy, __NR_prctl, {equals32(0, PR_SET_PDEATHSIG), equals64(1, SIGKILL)});
  allowIf(
      policy, __NR_seccomp,
      {equals32(0, SECCOMP_SET_MODE_FILTER), only32(1, SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH)});
}

void addExecutable(Policy& policy, const BaseParameters& parameters) {
  // Once that is closed there is none of its number again, and a path that is relative to it leads nowhere. An absolute
  // one is not relative to anything, and is in memory, where no filter sees it, nor pins it, as the worker can put
  // another text there. So what may be executed is for the root and Landlock to say: nothing at all under
  // worker-static, under worker-dynamic the worker and its loader.
  if (parameters.executableDescriptor >= 0) {
    allowIf(policy, __NR_execveat,
            {equals32(0, static_cast<std::uint32_t>(parameters.executableDescriptor)), equals32(4, AT_EMPTY_PATH)});
  }
}

}  // namespace

void addGivingBack(Policy& policy) {
  allowIf(policy, __NR_fallocate, {equals32(1, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)});
  // No limit on a file's size bounds what the other modes take of the file system behind its end (FALLOC_FL_KEEP_SIZE).
  // Whoever wants to zero a range goes on by writing zeroes.
  failWith(policy, EOPNOTSUPP, {__NR_fallocate});
}

void addBasis(Policy& policy, const BaseParameters& parameters) {
  addThreadsAndMemoryBasics(policy);
  addEventLoop(policy);
  addDescriptorInput(policy);
  addDataMemory(policy);
  addSelfConfinement(policy);
  addExecutable(policy, parameters);
  // glibc looks for /proc/self/exe before main and does without.
  failWith(policy, ENOENT, {kReadlink, __NR_readlinkat});
}

}  // namespace vmmhost::seccomp
