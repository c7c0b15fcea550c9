#include "ipc/jail/seccomp/test_calls.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/memfd.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <csignal>

namespace vmmhost::seccomp {
namespace {

constexpr std::uint64_t kMinusOne = ~std::uint64_t{0};
constexpr std::uint64_t kAtFdCwd = static_cast<std::uint64_t>(AT_FDCWD);

}  // namespace

std::vector<Call> deniedToAll() {
  return {
      {"socket AF_INET", __NR_socket, {AF_INET, SOCK_STREAM}},
      {"socket AF_UNIX", __NR_socket, {AF_UNIX, SOCK_STREAM}},
      {"socket AF_NETLINK", __NR_socket, {AF_NETLINK, SOCK_RAW}},
      {"socket AF_VSOCK", __NR_socket, {AF_VSOCK, SOCK_STREAM}},
      {"socketpair of datagrams", __NR_socketpair, {AF_UNIX, SOCK_DGRAM}},
      {"connect", __NR_connect, {3}},
      {"bind", __NR_bind, {3}},
      {"listen", __NR_listen, {3}},
      {"accept", __NR_accept, {3}},
      {"accept4", __NR_accept4, {3}},
      {"sendto an address", __NR_sendto, {3, 0, 0, 0, 0x1000, 16}},
      {"sendmsg", __NR_sendmsg, {3}},
      {"sendmmsg", __NR_sendmmsg, {3}},
      {"send", __NR_sendto, {3}},
      {"send out of band", __NR_sendto, {3, 0x1000, 8, MSG_NOSIGNAL | MSG_DONTWAIT | MSG_OOB, 0, 0}},
      {"send as others do, to an address", __NR_sendto, {3, 0x1000, 8, MSG_NOSIGNAL | MSG_DONTWAIT, 0x1000, 16}},
      {"unshare", __NR_unshare, {CLONE_NEWUSER}},
      {"setns", __NR_setns, {3}},
      {"mount", __NR_mount},
      {"umount2", __NR_umount2},
      {"pivot_root", __NR_pivot_root},
      {"chroot", __NR_chroot},
      {"fsopen", __NR_fsopen},
      {"fsmount", __NR_fsmount},
      {"open_tree", __NR_open_tree},
      {"move_mount", __NR_move_mount},
      {"mount_setattr", __NR_mount_setattr},
      {"openat2", __NR_openat2, {kAtFdCwd}},
      {"open_by_handle_at", __NR_open_by_handle_at},
      {"name_to_handle_at", __NR_name_to_handle_at},
      {"ptrace", __NR_ptrace, {PTRACE_TRACEME}},
      {"process_vm_writev", __NR_process_vm_writev, {1}},
      {"process_madvise", __NR_process_madvise, {3}},
      {"pidfd_getfd", __NR_pidfd_getfd, {3, 0}},
      {"kcmp", __NR_kcmp, {1, 1}},
      {"rt_sigqueueinfo", __NR_rt_sigqueueinfo, {1, SIGTERM}},
      {"rt_tgsigqueueinfo", __NR_rt_tgsigqueueinfo, {1, 1, SIGTERM}},
      {"keyctl", __NR_keyctl},
      {"add_key", __NR_add_key},
      {"request_key", __NR_request_key},
      {"bpf", __NR_bpf},
      {"perf_event_open", __NR_perf_event_open},
      {"io_uring_enter", __NR_io_uring_enter, {3}},
      {"io_uring_register", __NR_io_uring_register, {3}},
      {"userfaultfd", __NR_userfaultfd},
      {"fchmod", __NR_fchmod, {3, 06755}},
      {"fchmodat", __NR_fchmodat, {3}},
      {"fchown", __NR_fchown, {3, 0, 0}},
      {"fchownat", __NR_fchownat, {3}},
      {"fsetxattr", __NR_fsetxattr, {3}},
      {"fremovexattr", __NR_fremovexattr, {3}},
      {"utimensat", __NR_utimensat, {3}},
      {"truncate", __NR_truncate},
      {"flock", __NR_flock, {3, LOCK_EX}},
      {"setrlimit", __NR_setrlimit, {RLIMIT_NOFILE}},
      {"setuid", __NR_setuid, {0}},
      {"setgroups", __NR_setgroups},
      {"capset", __NR_capset},
      {"reboot", __NR_reboot},
      {"kexec_load", __NR_kexec_load},
      {"init_module", __NR_init_module},
      {"finit_module", __NR_finit_module},
      {"swapon", __NR_swapon},
      {"sethostname", __NR_sethostname},
      {"settimeofday", __NR_settimeofday},
      {"clock_settime", __NR_clock_settime},
      {"adjtimex", __NR_adjtimex},
      {"acct", __NR_acct},
      {"syslog", __NR_syslog},
      {"quotactl", __NR_quotactl},
      {"fanotify_init", __NR_fanotify_init},
      {"inotify_init1", __NR_inotify_init1},
      {"lookup_dcookie", __NR_lookup_dcookie},
      {"shmget", __NR_shmget},
      {"msgget", __NR_msgget},
      {"semget", __NR_semget},
      {"mq_open", __NR_mq_open},
      {"vmsplice", __NR_vmsplice, {3}},
      {"splice", __NR_splice, {3}},
      {"tee", __NR_tee, {3}},
      {"mknodat", __NR_mknodat},
      {"linkat", __NR_linkat},
      {"symlinkat", __NR_symlinkat},
      {"migrate_pages", __NR_migrate_pages},
      {"move_pages", __NR_move_pages},
      {"memfd_secret", __NR_memfd_secret},
      {"pkey_mprotect", __NR_pkey_mprotect, {0, 0, PROT_EXEC}},
      {"execveat of another descriptor", __NR_execveat, {3, 0, 0, 0, AT_EMPTY_PATH}},
      {"execveat of a path", __NR_execveat, {kAtFdCwd, 0, 0, 0, 0}},
      {"no such call", 1023},
  };
}

std::vector<Call> deniedToStatic() {
  return {
    {"openat", __NR_openat, {kAtFdCwd, 0, O_RDONLY}}, {"socketpair", __NR_socketpair, {AF_UNIX, SOCK_STREAM}},
        {"execve", __NR_execve}, {"fork by clone", __NR_clone, {SIGCHLD}},
        {"thread in a new network", __NR_clone, {0x3d0f00 | CLONE_NEWNET}},
        {"clone with CLONE_THREAD alone", __NR_clone, {CLONE_THREAD | CLONE_SIGHAND | CLONE_VM}},
        {"kill", __NR_kill, {kMinusOne, SIGTERM}}, {"tkill", __NR_tkill, {1, SIGTERM}},
        {"pidfd_open", __NR_pidfd_open, {1}}, {"pidfd_send_signal", __NR_pidfd_send_signal, {3}},
        {"process_vm_readv", __NR_process_vm_readv, {1}}, {"io_uring_setup", __NR_io_uring_setup, {1}},
        {"personality", __NR_personality, {0x0400000}}, {"ftruncate", __NR_ftruncate, {3, 0}},
        {"mmap PROT_EXEC", __NR_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, kMinusOne}},
        {"mmap PROT_EXEC in high bits too",
         __NR_mmap,
         {0, 4096, 0x100000000u | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS}},
        {"mmap shared anonymous", __NR_mmap, {0, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, kMinusOne}},
        {"mprotect PROT_EXEC", __NR_mprotect, {0, 4096, PROT_READ | PROT_EXEC}},
        {"memfd_create", __NR_memfd_create, {0, MFD_CLOEXEC | MFD_ALLOW_SEALING}},
        {"epoll_create1", __NR_epoll_create1, {0}}, {"fcntl F_DUPFD_CLOEXEC", __NR_fcntl, {3, F_DUPFD_CLOEXEC}},
        {"memfd_create executable", __NR_memfd_create, {0, MFD_CLOEXEC | 0x0010}},
        {"memfd_create of huge pages", __NR_memfd_create, {0, MFD_CLOEXEC | MFD_HUGETLB}},
        {"memfd_create kept over exec", __NR_memfd_create, {0, 0}}, {"fcntl F_SETLK", __NR_fcntl, {3, F_SETLK}},
        {"fcntl F_OFD_SETLK", __NR_fcntl, {3, 37}}, {"fcntl F_SETLEASE", __NR_fcntl, {3, 1024}},
        {"fcntl F_NOTIFY", __NR_fcntl, {3, 1026}}, {"fcntl F_SETOWN", __NR_fcntl, {3, F_SETOWN}},
        {"fcntl F_SETFL", __NR_fcntl, {3, F_SETFL, 0}}, {"fcntl F_SETPIPE_SZ", __NR_fcntl, {3, 1031, 1 << 20}},
        {"fcntl F_SETLEASE with high bits set", __NR_fcntl, {3, 0x100000000u + 1024}},
        {"ioctl TIOCSTI", __NR_ioctl, {0, TIOCSTI}}, {"ioctl FIOASYNC", __NR_ioctl, {3, FIOASYNC}},
        {"ioctl TUNSETPERSIST", __NR_ioctl, {3, TUNSETPERSIST}}, {"ioctl TUNSETOWNER", __NR_ioctl, {3, TUNSETOWNER}},
        {"ioctl TUNSETIFF", __NR_ioctl, {3, TUNSETIFF}}, {"ioctl TUNSETQUEUE", __NR_ioctl, {3, TUNSETQUEUE}},
        {"ioctl TUNSETCARRIER", __NR_ioctl, {3, TUNSETCARRIER}},
        {"ioctl SIOCSIFHWADDR", __NR_ioctl, {3, SIOCSIFHWADDR}},
        {"prctl PR_SET_DUMPABLE 1", __NR_prctl, {PR_SET_DUMPABLE, 1}}, {"prctl PR_SET_MM", __NR_prctl, {PR_SET_MM}},
        {"prctl PR_SET_PTRACER", __NR_prctl, {PR_SET_PTRACER, kMinusOne}},
        {"prctl PR_SET_PDEATHSIG 0", __NR_prctl, {PR_SET_PDEATHSIG, 0}},
        {"prctl PR_CAP_AMBIENT", __NR_prctl, {PR_CAP_AMBIENT}},
        {"seccomp with a listener", __NR_seccomp, {SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER}},
        {"another's rlimits", __NR_prlimit64, {1, RLIMIT_NOFILE, 0x1000}},
        {"prlimit64 that sets", __NR_prlimit64, {0, RLIMIT_NOFILE, 0x1000}},
        {"getsockopt SO_PEERPIDFD", __NR_getsockopt, {3, SOL_SOCKET, 77}}, {"setsockopt", __NR_setsockopt, {3}},
        {"SO_SNDBUF", __NR_setsockopt, {3, SOL_SOCKET, SO_SNDBUF, 0x1000, 4}}, {"getdents64", __NR_getdents64, {3}},
        {"newfstatat of a path", __NR_newfstatat, {kAtFdCwd}}, {"statx", __NR_statx, {kAtFdCwd}}, {"chdir", __NR_chdir},
        {"unlinkat", __NR_unlinkat}, {"dup3", __NR_dup3, {0, 9}}, {"setsid", __NR_setsid},
        {"landlock_create_ruleset", __NR_landlock_create_ruleset}, {"sched_setaffinity", __NR_sched_setaffinity},
        {"mlockall", __NR_mlockall}, {"copy_file_range", __NR_copy_file_range, {3}}, {"sendfile", __NR_sendfile, {3}},
#if defined(__x86_64__)
        {"open", __NR_open}, {"creat", __NR_creat}, {"fork", __NR_fork}, {"vfork", __NR_vfork}, {"dup2", __NR_dup2},
        {"pipe", __NR_pipe}, {"unlink", __NR_unlink}, {"chmod", __NR_chmod}, {"iopl", __NR_iopl, {3}},
        {"ioperm", __NR_ioperm}, {"modify_ldt", __NR_modify_ldt},
#endif
  };
}

std::vector<sock_filter> programOf(const char* policy) {
  return compile(basePolicy(policy, {.executableDescriptor = kExecutable}));
}

std::vector<sock_filter> programOf(std::uint64_t grants) {
  return compile(composedPolicy(grants, {.executableDescriptor = kExecutable, .rings = 2}));
}

std::vector<sock_filter> oldProgramOf(const char* policy, bool hasProc) {
  BaseParameters parameters{.executableDescriptor = kExecutable, .makesMemoryFiles = true, .makesEpolls = true};
  parameters.hasProc = hasProc;
  return compile(basePolicy(policy, parameters));
}

}  // namespace vmmhost::seccomp
