// The pieces of which policies are composed. Each stands alone: what a set of them allows is what one of them allows.
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/memfd.h>
#include <linux/sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <set>
#include <string>

#include "ipc/jail/seccomp/call_table.h"
#include "vmmhost/error.h"
#include "vmmhost/rings.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

namespace vmmhost::seccomp {
namespace {

void addKvm(Policy& policy, const BaseParameters&) {
  // _IOC_TYPE: which of them a thread needs is for the worker's own filters to say.
  allowIf(policy, __NR_ioctl, {ArgCheck{1, 0xff00, KVMIO << 8}});
}

void addTap(Policy& policy, const BaseParameters&) {
  // Of all that can be asked of a TAP device, what its frames may be: the host has set up the rest, and the device
  // outlives the worker.
  allowValues(policy, __NR_ioctl, 1, {TUNSETOFFLOAD});
}

void addRings(Policy& policy, const BaseParameters& parameters) {
  // No other rings can come to be: io_uring_setup is not here, and what is on these descriptors is restricted.
  for (unsigned index = 0; index < parameters.rings; ++index) {
    const auto ring = static_cast<std::uint32_t>(rings::kFirstDescriptor) + index;
    allowIf(policy, __NR_io_uring_enter, {equals32(0, ring), only32(3, IORING_ENTER_GETEVENTS), equals64(4, 0)});
    allowIf(policy, __NR_io_uring_register, {equals32(0, ring), equals32(1, IORING_REGISTER_FILES_UPDATE)});
  }
}

void addDisks(Policy& policy, const BaseParameters&) {
  allowIf(policy, __NR_pwritev2, {equals32(5, RWF_DSYNC)});
  addGivingBack(policy);
}

void addVsockSockets(Policy& policy, const BaseParameters&) {
  // send(), which says nothing that write() does not: no address, no flags that matter to who receives.
  allowIf(policy, __NR_sendto, {equals32(3, MSG_NOSIGNAL | MSG_DONTWAIT), equals64(4, 0)});
  // Reading on without taking out: of any socket, the own end alone.
  allowIf(policy, __NR_setsockopt, {equals32(1, SOL_SOCKET), equals32(2, SO_PEEK_OFF)});
}

void addAccept(Policy& policy, const BaseParameters&) {
  allowIf(policy, __NR_accept4, {only32(3, SOCK_CLOEXEC | SOCK_NONBLOCK)});
}

void addMemoryFiles(Policy& policy, const BaseParameters&) {
  // Where there is a /proc such a file has a path: it is not to be a program. Huge pages are the machine's.
  allowIf(policy, __NR_memfd_create, {ArgCheck{1, 0xffffffffu & ~MFD_ALLOW_SEALING, MFD_CLOEXEC | MFD_NOEXEC_SEAL}});
}

void addEpolls(Policy& policy, const BaseParameters&) {
  // An instance watches each descriptor of a file anew: who starts with its instances has no duplicates, so that their
  // number is bounded by that of the files; who makes them has few descriptors.
  allow(policy, {__NR_epoll_create1});
  allowValues(policy, __NR_fcntl, 1, {F_DUPFD_CLOEXEC});
}

void addFiles(Policy& policy, const BaseParameters&) {
  constexpr std::uint64_t kWriting = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND | (O_TMPFILE & ~O_DIRECTORY);
  allowIf(policy, __NR_openat, {without(2, kWriting)});
  allowIf(policy, kOpen, {without(1, kWriting)});
  failWith(policy, EROFS, {__NR_openat, kOpen, kUnlink, __NR_unlinkat});
  allow(policy, {
                    __NR_newfstatat,
                    kStat,
                    kLstat,
                    __NR_statx,
                    kAccess,
                    __NR_faccessat,
                    __NR_getdents64,
                    __NR_getcwd,
                    kReadlink,
                    __NR_readlinkat,
                });
}

void addTemporaryFiles(Policy& policy, const BaseParameters&) {
  // Everything but a private /tmp is read-only, and Landlock says so as well.
  allow(policy, {kOpen, __NR_openat, kUnlink, __NR_unlinkat, kMkdir, __NR_mkdirat, kRmdir, kRename});
}

void addLoader(Policy& policy, const BaseParameters&) {
  // As a loader maps code: private, of a file, and never writable. Nothing that was written becomes executable.
  allowIf(policy, __NR_mmap,
          {without(2, PROT_WRITE), ArgCheck{3, MAP_TYPE | MAP_ANONYMOUS | kUnboundedMemory, MAP_PRIVATE}});
}

constexpr std::uint64_t kNamespaces =
    CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;

// Processes, what shells ask of files and descriptors, and errnos for what such programs try and can do without.
void addPrograms(Policy& policy, const BaseParameters&) {
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
                    // folders and descriptors
                    __NR_statfs,
                    __NR_fstatfs,
                    __NR_faccessat2,
                    kGetdents,
                    __NR_chdir,
                    __NR_fchdir,
                    __NR_umask,
                    __NR_dup,
                    kDup2,
                    __NR_dup3,
                    kPipe,
                    __NR_pipe2,
                });
  // Processes. A thread is made as pthread_create makes it, or it could have a table of descriptors of its own.
  allowIf(policy, __NR_clone, {without(0, kNamespaces | CLONE_THREAD)});
  allowIf(policy, __NR_prctl, {equals32(0, PR_SET_TIMERSLACK)});
  failWith(policy, EINVAL, {__NR_prctl, __NR_seccomp});
  failWith(policy, EPERM, {__NR_setpriority, __NR_sched_setaffinity, __NR_sched_setscheduler, __NR_prlimit64});
  allowValues(policy, __NR_fcntl, 1, {F_DUPFD, F_DUPFD_CLOEXEC, F_SETFL});
  failWith(policy, EINVAL, {__NR_fcntl});  // no locks
  allowValues(policy, __NR_ioctl, 1, {FIONREAD, FIOCLEX});
  failWith(policy, ENOTTY, {__NR_ioctl});
  // They tell or change what the page cache holds of a file, which other VMs may read as well.
  failWith(policy, ENOSYS, {__NR_fadvise64, __NR_readahead, __NR_mincore});
  failWith(policy, EOPNOTSUPP, {__NR_copy_file_range});
  failWith(policy, EPERM, {__NR_ftruncate});
  failWith(policy, ENOSYS, {__NR_io_uring_setup, __NR_io_setup});
}

void addPairs(Policy& policy, const BaseParameters&) {
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

struct Piece {
  Grant grant;
  void (*add)(Policy& policy, const BaseParameters& parameters);
};

// Bits and names are for good: plugins are built with them. New ones go to the end.
constexpr Piece kPieces[] = {
    {{"kvm", grant::kKvm, "requests to KVM, on descriptors that it was given and on those that KVM makes"}, addKvm},
    {{"tap", grant::kTap, "TUNSETOFFLOAD, which says what frames of a TAP device may be, and no other request to one"},
     addTap},
    {{"rings", grant::kRings,
      "using the rings of io_uring that the plan asks for, each restricted to one file; none can be made"},
     addRings},
    {{"disks", grant::kDisks,
      "holes in files (fallocate with PUNCH_HOLE and KEEP_SIZE) and durable writes (pwritev2 with RWF_DSYNC)"},
     addDisks},
    {{"vsock-sockets", grant::kVsockSockets,
      "send on connected sockets, without an address, and reading on without taking out (SO_PEEK_OFF)"},
     addVsockSockets},
    {{"accept", grant::kAccept,
      "accept4 on a listening socket that it was given; there is no socket, bind, listen or connect"},
     addAccept},
    {{"memory-files", grant::kMemoryFiles,
      "memfd_create, closed on exec and sealed against being executed (MFD_NOEXEC_SEAL, Linux 6.3)"},
     addMemoryFiles},
    {{"epolls", grant::kEpolls, "making instances of epoll (epoll_create1) and duplicates of descriptors"}, addEpolls},
    {{"files", grant::kFiles, "opening files of the root to read them, and asking about them and about folders"},
     addFiles},
    {{"temporary-files", grant::kTemporaryFiles,
      "making, writing, renaming and removing files and folders, for which only a private /tmp has room"},
     addTemporaryFiles},
    {{"loader", grant::kLoader, "mapping files that are open as executable memory, private and never writable"},
     addLoader},
    {{"programs", grant::kPrograms,
      "fork, execve, wait and signals among its own processes: programs of the root, under the same filter"},
     addPrograms},
    {{"pairs", grant::kPairs, "socketpair of Unix streams, written to and read from"}, addPairs},
};

constexpr auto kGrants = [] {
  std::array<Grant, std::size(kPieces)> all{};
  std::transform(std::begin(kPieces), std::end(kPieces), all.begin(), [](const Piece& piece) { return piece.grant; });
  return all;
}();

constexpr std::uint64_t kAllBits = [] {
  std::uint64_t all = 0;
  for (const Grant& one : kGrants) {
    all |= one.bit;
  }
  return all;
}();

static_assert([] {
  for (std::size_t index = 0; index < kGrants.size(); ++index) {
    if (kGrants[index].bit != std::uint64_t{1} << index) {
      return false;
    }
  }
  return true;
}());

}  // namespace

std::span<const Grant> grants() {
  return kGrants;
}

std::string namesOf(std::uint64_t bits) {
  std::string names;
  const auto append = [&names](std::string_view name) {
    names += names.empty() ? "" : ", ";
    names += name;
  };
  for (const Grant& one : kGrants) {
    if ((bits & one.bit) != 0) {
      append(one.name);
    }
  }
  for (unsigned bit = 0; bit < 64; ++bit) {
    if ((bits & ~kAllBits & std::uint64_t{1} << bit) != 0) {
      append("bit " + std::to_string(bit));
    }
  }
  return names.empty() ? "none" : names;
}

void addPieces(Policy& policy, std::uint64_t grants, const BaseParameters& parameters) {
  for (const Piece& piece : kPieces) {
    if ((grants & piece.grant.bit) != 0) {
      piece.add(policy, parameters);
    }
  }
}

void keepFirstErrnos(Policy& policy) {
  std::set<std::uint32_t> seen;
  std::erase_if(policy.fail, [&seen](const ErrnoRule& rule) { return !seen.insert(rule.number).second; });
}

Policy composedPolicy(std::uint64_t grants, const BaseParameters& parameters) {
  if ((grants & ~kAllBits) != 0) {
    throw Error(ErrorCode::kInvalidArgument, "there are no such seccomp grants: " + namesOf(grants & ~kAllBits),
                "those that there are: " + namesOf(kAllBits));
  }
  Policy policy;
  policy.name = "of grants";
  addBasis(policy, parameters);
  addPieces(policy, grants, parameters);
  keepFirstErrnos(policy);
  return policy;
}

}  // namespace vmmhost::seccomp
