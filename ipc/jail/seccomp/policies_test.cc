// The tables, evaluated.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/memfd.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <string>

#include "ipc/jail/seccomp/test_calls.h"
#include "vmmhost/error.h"
#include "vmmhost/rings.h"
#include "vmmhost/seccomp.h"

namespace vmmhost::seccomp {
namespace {

std::uint32_t verdict(std::span<const sock_filter> program, const Call& call) {
  seccomp_data data{};
  data.nr = static_cast<int>(call.number);
  data.arch = kAuditArch;
  for (std::size_t i = 0; i < call.args.size(); ++i) {
    data.args[i] = call.args[i];
  }
  return evaluate(program, data);
}

// How many instructions are carried out for a call of this number with no arguments. Of what compile() makes, this
// knows all.
std::size_t stepsOf(std::span<const sock_filter> program, std::uint32_t number) {
  std::uint32_t accumulator = 0;
  std::size_t steps = 0;
  for (std::size_t at = 0; at < program.size(); ++at) {
    const sock_filter& step = program[at];
    ++steps;
    switch (step.code) {
      case BPF_LD | BPF_W | BPF_ABS:
        accumulator = step.k == offsetof(seccomp_data, nr)     ? number
                      : step.k == offsetof(seccomp_data, arch) ? kAuditArch
                                                               : 0;
        break;
      case BPF_ALU | BPF_AND | BPF_K:
        accumulator &= step.k;
        break;
      case BPF_JMP | BPF_JA:
        at += step.k;
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
        at += accumulator == step.k ? step.jt : step.jf;
        break;
      case BPF_JMP | BPF_JGE | BPF_K:
        at += accumulator >= step.k ? step.jt : step.jf;
        break;
      case BPF_JMP | BPF_JGT | BPF_K:
        at += accumulator > step.k ? step.jt : step.jf;
        break;
      case BPF_RET | BPF_K:
        return steps;
      default:
        ADD_FAILURE() << "an instruction that compile() does not make: " << step.code;
        return steps;
    }
  }
  ADD_FAILURE() << "no return";
  return steps;
}

TEST(BasePolicy, unknownName_isRefusedAndNamed) {
  try {
    basePolicy("worker-loose", {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(error.message().find("worker-loose"), std::string::npos);
  }
}

TEST(BasePolicy, everyPolicy_deniesWhatNoWorkerNeeds) {
  for (const char* name : {"worker-static", "worker-dynamic", "worker-system"}) {
    const auto program = programOf(name);
    for (const Call& call : deniedToAll()) {
      EXPECT_EQ(verdict(program, call), SECCOMP_RET_KILL_PROCESS) << name << ": " << call.name;
    }
  }
}

TEST(BasePolicy, staticWorker_isDeniedThePathsAndProcessesToo) {
  const auto program = programOf("worker-static");
  for (const Call& call : deniedToStatic()) {
    EXPECT_EQ(verdict(program, call), SECCOMP_RET_KILL_PROCESS) << call.name;
  }
}

TEST(BasePolicy, foreignArchitectureAndX32_areDenied) {
  for (const char* name : {"worker-static", "worker-dynamic", "worker-system"}) {
    const auto program = programOf(name);
    seccomp_data data{};
    data.nr = __NR_getpid;
    data.arch = kAuditArch;
    EXPECT_EQ(evaluate(program, data), SECCOMP_RET_ALLOW);
    data.arch = 0x40000003;  // AUDIT_ARCH_I386
    EXPECT_EQ(evaluate(program, data), SECCOMP_RET_KILL_PROCESS);
    data.arch = kAuditArch;
    for (const std::uint32_t number : {kX32, kX32 + __NR_getpid, 0xffffffffu}) {
      data.nr = static_cast<int>(number);
      EXPECT_EQ(evaluate(program, data), SECCOMP_RET_KILL_PROCESS) << number;
    }
  }
}

TEST(BasePolicy, staticWorker_isAllowedWhatItWorksWith) {
  const auto program = programOf("worker-static");
  const std::vector<Call> allowed = {
      {"thread", __NR_clone, {0x3d0f00}},
      {"mmap private", __NR_mmap, {0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, ~0ull}},
      {"mmap a shared descriptor", __NR_mmap, {0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, 5}},
      {"relocated data becomes read-only", __NR_mprotect, {0x1000, 4096, PROT_READ}},
      {"KVM_RUN", __NR_ioctl, {5, KVM_RUN}},
      {"KVM_CREATE_VM", __NR_ioctl, {5, KVM_CREATE_VM}},
      {"TUNSETOFFLOAD", __NR_ioctl, {5, TUNSETOFFLOAD}},
      {"F_ADD_SEALS", __NR_fcntl, {5, F_ADD_SEALS}},
      {"PR_SET_NAME", __NR_prctl, {PR_SET_NAME, 0x1000}},
      {"PR_SET_DUMPABLE 0", __NR_prctl, {PR_SET_DUMPABLE, 0}},
      {"PR_SET_PDEATHSIG SIGKILL", __NR_prctl, {PR_SET_PDEATHSIG, SIGKILL}},
      {"a further filter", __NR_seccomp, {SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, 0x1000}},
      {"reading its limits", __NR_prlimit64, {0, RLIMIT_STACK, 0, 0x1000}},
      {"the executable", __NR_execveat, {kExecutable, 0x1000, 0x1000, 0x1000, AT_EMPTY_PATH}},
      {"writev", __NR_writev, {3}},
      {"recvmsg", __NR_recvmsg, {3}},
      {"send to whom it is connected", __NR_sendto, {3, 0x1000, 8, MSG_NOSIGNAL | MSG_DONTWAIT, 0, 0}},
      {"SO_PEEK_OFF", __NR_setsockopt, {3, SOL_SOCKET, SO_PEEK_OFF, 0x1000, 4}},
  };
  for (const Call& call : allowed) {
    EXPECT_EQ(verdict(program, call), SECCOMP_RET_ALLOW) << call.name;
  }
  EXPECT_EQ(verdict(program, {"clone3", __NR_clone3}), SECCOMP_RET_ERRNO | ENOSYS);
  EXPECT_EQ(verdict(program, {"readlinkat", __NR_readlinkat}), SECCOMP_RET_ERRNO | ENOENT);
}

TEST(BasePolicy, filesOfMemory_areMadeByWorkersOfOlderPluginsAlone) {
  for (const char* name : {"worker-static", "worker-dynamic", "worker-system"}) {
    const std::uint32_t refusal =
        std::string(name) == "worker-static" ? SECCOMP_RET_KILL_PROCESS : SECCOMP_RET_ERRNO | EINVAL;
    const auto old = oldProgramOf(name);
    const auto now = programOf(name);
    for (const std::uint64_t flags : {MFD_CLOEXEC | MFD_ALLOW_SEALING, MFD_CLOEXEC | MFD_ALLOW_SEALING | kNoExecSeal}) {
      EXPECT_EQ(verdict(old, {"", __NR_memfd_create, {0x1000, flags}}), SECCOMP_RET_ALLOW) << name;
      EXPECT_EQ(verdict(now, {"", __NR_memfd_create, {0x1000, flags}}), refusal) << name;
    }
    for (const std::uint64_t flags : {0u, MFD_CLOEXEC | 0x0010u, MFD_CLOEXEC | MFD_HUGETLB}) {
      EXPECT_EQ(verdict(old, {"", __NR_memfd_create, {0x1000, flags}}), refusal) << name << ' ' << flags;
    }
    // Else an old policy is as closed as the new one.
    for (const Call& call : deniedToAll()) {
      EXPECT_EQ(verdict(old, call), SECCOMP_RET_KILL_PROCESS) << name << ": " << call.name;
    }
    EXPECT_EQ(verdict(old, {"", __NR_close_range, {4, 255, 2}}), SECCOMP_RET_ERRNO | EINVAL);
    EXPECT_NE(verdict(old, {"", __NR_mmap, {0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB}}),
              SECCOMP_RET_ALLOW);
  }
}

// In /proc a file of memory has a path, by which a dynamic worker could execute it.
TEST(BasePolicy, filesOfMemory_thatHaveAPath_areSealedAgainstExecution) {
  const Call plain = {"", __NR_memfd_create, {0x1000, MFD_CLOEXEC | MFD_ALLOW_SEALING}};
  const Call sealed = {"", __NR_memfd_create, {0x1000, MFD_CLOEXEC | MFD_ALLOW_SEALING | kNoExecSeal}};
  EXPECT_EQ(verdict(oldProgramOf("worker-dynamic", true), plain), SECCOMP_RET_ERRNO | EINVAL);
  EXPECT_EQ(verdict(oldProgramOf("worker-dynamic", true), sealed), SECCOMP_RET_ALLOW);
  EXPECT_EQ(verdict(oldProgramOf("worker-dynamic", false), plain), SECCOMP_RET_ALLOW) << "kernels before 6.3";
  EXPECT_EQ(verdict(oldProgramOf("worker-system", true), plain), SECCOMP_RET_ALLOW) << "it starts programs anyhow";
}

TEST(BasePolicy, epollInstances_areMadeByWorkersOfOlderPluginsAlone_andNoneHasDuplicates) {
  const Call make = {"", __NR_epoll_create1, {EPOLL_CLOEXEC}};
  const Call duplicate = {"", __NR_fcntl, {5, F_DUPFD_CLOEXEC}};
  for (const char* name : {"worker-static", "worker-dynamic", "worker-system"}) {
    const bool isSystem = std::string(name) == "worker-system";
    EXPECT_EQ(verdict(oldProgramOf(name), make), SECCOMP_RET_ALLOW) << name;
    EXPECT_EQ(verdict(oldProgramOf(name), duplicate), SECCOMP_RET_ALLOW) << name;
    EXPECT_EQ(verdict(programOf(name), make), isSystem ? SECCOMP_RET_ERRNO | EMFILE : SECCOMP_RET_KILL_PROCESS);
    EXPECT_EQ(verdict(programOf(name), duplicate), isSystem ? SECCOMP_RET_ALLOW : SECCOMP_RET_KILL_PROCESS);
    EXPECT_EQ(verdict(programOf(name), {"", __NR_epoll_ctl, {4, EPOLL_CTL_ADD, 5}}), SECCOMP_RET_ALLOW);
  }
}

TEST(BasePolicy, withoutExecutable_execveatIsDenied) {
  const auto program = compile(basePolicy("worker-static", {}));
  EXPECT_EQ(verdict(program, {"execveat", __NR_execveat, {0xffffffffu, 0, 0, 0, AT_EMPTY_PATH}}),
            SECCOMP_RET_KILL_PROCESS);
}

TEST(BasePolicy, rings_canBeUsedButNotMade) {
  for (const char* name : {"worker-static", "worker-dynamic"}) {
    const auto program = compile(basePolicy(name, {.executableDescriptor = kExecutable, .rings = 2}));
    const auto isAllowed = [&](std::uint32_t number, std::array<std::uint64_t, 6> arguments) {
      return verdict(program, {"", number, arguments}) == SECCOMP_RET_ALLOW;
    };
    for (const std::uint64_t ring : {4, 5}) {
      EXPECT_TRUE(isAllowed(__NR_io_uring_enter, {ring, 8, 0, 0, 0, 8})) << name;
      EXPECT_TRUE(isAllowed(__NR_io_uring_enter, {ring, 0, 1, IORING_ENTER_GETEVENTS, 0, 8}));
      EXPECT_FALSE(isAllowed(__NR_io_uring_enter, {ring, 0, 1, IORING_ENTER_EXT_ARG, 0, 8}));
      EXPECT_FALSE(isAllowed(__NR_io_uring_enter, {ring, 0, 1, IORING_ENTER_GETEVENTS, 0x1000, 8})) << "a signal mask";
      EXPECT_TRUE(isAllowed(__NR_io_uring_register, {ring, IORING_REGISTER_FILES_UPDATE, 0x1000, 1}));
      EXPECT_FALSE(isAllowed(__NR_io_uring_register, {ring, IORING_REGISTER_BUFFERS, 0x1000, 1}));
      EXPECT_FALSE(isAllowed(__NR_io_uring_register, {ring, IORING_REGISTER_RESTRICTIONS, 0x1000, 1}));
    }
    for (const std::uint64_t other : {0, 3, 6, 255}) {
      EXPECT_FALSE(isAllowed(__NR_io_uring_enter, {other, 8, 0, 0, 0, 8})) << name << other;
      EXPECT_FALSE(isAllowed(__NR_io_uring_register, {other, IORING_REGISTER_FILES_UPDATE, 0x1000, 1}));
    }
    EXPECT_FALSE(isAllowed(__NR_io_uring_setup, {1, 0x1000}));
    EXPECT_LT(compile(basePolicy(name, {.rings = rings::kMaxRings})).size(), 2000u);
  }
  const auto system = compile(basePolicy("worker-system", {.rings = 2}));
  EXPECT_EQ(verdict(system, {"", __NR_io_uring_enter, {4}}), SECCOMP_RET_KILL_PROCESS);
}

// Allocating with FALLOC_FL_KEEP_SIZE takes blocks behind the end of a file, which RLIMIT_FSIZE does not bound.
TEST(BasePolicy, noWorker_allocatesByAnythingButWriting) {
  for (const char* name : {"worker-static", "worker-dynamic", "worker-system"}) {
    const auto program = programOf(name);
    const auto allocate = [&](std::uint64_t mode) {
      return verdict(program, {"", __NR_fallocate, {5, mode, 0, 4096}});
    };
    EXPECT_EQ(allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE), SECCOMP_RET_ALLOW) << name;
    for (const std::uint64_t mode :
         {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE,
          FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE,
          FALLOC_FL_UNSHARE_RANGE, FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE}) {
      EXPECT_EQ(allocate(mode), SECCOMP_RET_ERRNO | EOPNOTSUPP) << name << ' ' << mode;
    }
  }
}

TEST(BasePolicy, staticWorker_writesDurably_andDoesNotAppend) {
  const auto program = programOf("worker-static");
  EXPECT_EQ(verdict(program, {"", __NR_pwritev2, {5, 0x1000, 1, 0, 0, RWF_DSYNC}}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(verdict(program, {"", __NR_pwritev2, {5, 0x1000, 1, 0, 0, RWF_APPEND}}), SECCOMP_RET_KILL_PROCESS);
}

TEST(BasePolicy, noPolicy_hasMemoryThatNoLimitCounts) {
  const std::pair<const char*, std::uint32_t> refusals[] = {{"worker-static", SECCOMP_RET_KILL_PROCESS},
                                                            {"worker-dynamic", SECCOMP_RET_KILL_PROCESS},
                                                            {"worker-system", SECCOMP_RET_ERRNO | EPERM}};
  for (const auto& [name, refusal] : refusals) {
    const auto program = programOf(name);
    for (const std::uint64_t flag : {0, MAP_HUGETLB, MAP_HUGETLB | 21 << 26, MAP_GROWSDOWN}) {
      for (const std::uint64_t kind : {MAP_PRIVATE | MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED}) {
        EXPECT_EQ(verdict(program, {"", __NR_mmap, {0, 1 << 21, PROT_READ | PROT_WRITE, kind | flag, 5}}),
                  flag == 0 ? SECCOMP_RET_ALLOW : refusal)
            << name << ' ' << flag << ' ' << kind;
      }
    }
  }
}

TEST(BasePolicy, everyPolicy_advisesWhatIsInUse_andHidesNoDescriptors) {
  for (const char* name : {"worker-static", "worker-dynamic", "worker-system"}) {
    const auto program = programOf(name);
    const auto advise = [&](std::uint64_t advice) { return verdict(program, {"", __NR_madvise, {0, 4096, advice}}); };
    for (const std::uint64_t advice : {MADV_DONTNEED, MADV_FREE, MADV_HUGEPAGE}) {
      EXPECT_EQ(advise(advice), SECCOMP_RET_ALLOW) << name << ' ' << advice;
    }
    // Equal pages, pages out, poison; and a number that the kernel does not have yet.
    for (const std::uint64_t advice : {12, 13, 20, 21, 22, 23, 25, 100, 101, 1000}) {
      EXPECT_EQ(advise(advice), SECCOMP_RET_ERRNO | EINVAL) << name << ' ' << advice;
    }
    EXPECT_EQ(verdict(program, {"", __NR_close_range, {4, 255, 0}}), SECCOMP_RET_ALLOW);
    for (const std::uint64_t flags : {2, 4, 6, 8}) {
      EXPECT_EQ(verdict(program, {"", __NR_close_range, {4, 255, flags}}), SECCOMP_RET_ERRNO | EINVAL) << flags;
    }
  }
}

TEST(BasePolicy, dynamicWorker_readsFilesButNeverWritesThem) {
  const auto program = programOf("worker-dynamic");
  EXPECT_EQ(verdict(program, {"", __NR_openat, {0, 0, O_RDONLY | O_CLOEXEC}}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(verdict(program, {"", __NR_openat, {0, 0, O_RDONLY | O_DIRECTORY}}), SECCOMP_RET_ALLOW);
  for (const int flags : {O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_TMPFILE, O_RDWR | O_CREAT}) {
    EXPECT_EQ(verdict(program, {"", __NR_openat, {0, 0, static_cast<std::uint64_t>(flags)}}),
              SECCOMP_RET_ERRNO | EROFS);
  }
  EXPECT_EQ(verdict(program, {"", __NR_readlinkat}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(verdict(program, {"", __NR_clone, {SIGCHLD}}), SECCOMP_RET_ERRNO | EPERM);
  EXPECT_EQ(verdict(program, {"", __NR_clone, {0x3d0f00}}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(verdict(program, {"", __NR_execve}), SECCOMP_RET_KILL_PROCESS);
}

TEST(BasePolicy, systemWorker_startsProcessesWithoutNamespaces) {
  const auto program = programOf("worker-system");
  EXPECT_EQ(verdict(program, {"", __NR_execve}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(verdict(program, {"", __NR_clone, {SIGCHLD}}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(verdict(program, {"", __NR_clone, {CLONE_VM | CLONE_VFORK | SIGCHLD}}), SECCOMP_RET_ALLOW);
  for (const std::uint64_t flag :
       {CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP}) {
    EXPECT_EQ(verdict(program, {"", __NR_clone, {flag | SIGCHLD}}), SECCOMP_RET_KILL_PROCESS) << flag;
  }
  EXPECT_EQ(verdict(program, {"", __NR_clone, {0x3d0f00}}), SECCOMP_RET_ALLOW) << "a thread";
  EXPECT_EQ(verdict(program, {"", __NR_socketpair, {AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC}}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(verdict(program, {"", __NR_socketpair, {AF_UNIX, SOCK_SEQPACKET}}), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(verdict(program, {"", __NR_fcntl, {3, 36 /* F_OFD_GETLK */}}), SECCOMP_RET_ERRNO | EINVAL);
  EXPECT_EQ(verdict(program, {"", __NR_fcntl, {3, 1024 /* F_SETLEASE */}}), SECCOMP_RET_ERRNO | EINVAL);
  EXPECT_EQ(verdict(program, {"", __NR_ftruncate, {3}}), SECCOMP_RET_ERRNO | EPERM);
  EXPECT_EQ(verdict(program, {"", __NR_io_uring_setup}), SECCOMP_RET_ERRNO | ENOSYS);
  EXPECT_EQ(verdict(program, {"", __NR_ioctl, {0, TIOCSTI}}), SECCOMP_RET_ERRNO | ENOTTY);
  EXPECT_EQ(verdict(program, {"", __NR_prlimit64, {0, RLIMIT_NOFILE, 0x1000}}), SECCOMP_RET_ERRNO | EPERM);
}

// Who looks at a process from outside sees one table of descriptors.
TEST(BasePolicy, noWorker_hasThreadsWithDescriptorsOfTheirOwn) {
  constexpr std::uint64_t kThread = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD;
  constexpr std::uint64_t kUsual = 0x3d0f00;
  for (const char* name : {"worker-static", "worker-dynamic", "worker-system"}) {
    const auto program = programOf(name);
    const std::uint32_t refusal =
        std::string(name) == "worker-dynamic" ? SECCOMP_RET_ERRNO | EPERM : SECCOMP_RET_KILL_PROCESS;
    for (const std::uint64_t flags : {kThread, kThread | CLONE_FS, kThread | SIGCHLD, kUsual - CLONE_FILES}) {
      EXPECT_EQ(verdict(program, {"", __NR_clone, {flags}}), refusal) << name << ' ' << flags;
    }
  }
}

TEST(BasePolicy, systemWorker_asksNothingOfThePageCache) {
  const auto program = programOf("worker-system");
  for (const std::uint32_t number : {__NR_mincore, __NR_fadvise64, __NR_readahead}) {
    EXPECT_EQ(verdict(program, {"", number}), SECCOMP_RET_ERRNO | ENOSYS) << number;
  }
}

TEST(BasePolicy, systemWorker_setsFramesOfATap_andNothingThatReachesBeyondTheVm) {
  const auto program = programOf("worker-system");
  for (const std::uint64_t request : {TUNSETOFFLOAD, TUNGETIFF, TUNGETVNETHDRSZ, TUNSETVNETHDRSZ}) {
    EXPECT_EQ(verdict(program, {"", __NR_ioctl, {5, request}}), SECCOMP_RET_ALLOW) << request;
    EXPECT_EQ(verdict(programOf("worker-dynamic"), {"", __NR_ioctl, {5, request}}) == SECCOMP_RET_ALLOW,
              request == TUNSETOFFLOAD);
  }
  for (const std::uint64_t request :
       {TUNSETIFF, TUNSETPERSIST, TUNSETOWNER, TUNSETGROUP, TUNSETLINK, TUNSETQUEUE, TUNSETCARRIER, TUNSETTXFILTER,
        TUNATTACHFILTER, TUNSETSTEERINGEBPF, TUNSETFILTEREBPF, std::uint64_t{TUNGETDEVNETNS}}) {
    EXPECT_EQ(verdict(program, {"", __NR_ioctl, {5, request}}), SECCOMP_RET_ERRNO | ENOTTY) << request;
  }
}

TEST(BasePolicy, searchIsShort) {
  // A common call costs few instructions: the tree's depth, not the table's length.
  for (const char* name : {"worker-static", "worker-dynamic", "worker-system"}) {
    const auto program = programOf(name);
    EXPECT_LT(program.size(), 700u) << name;
    for (const std::uint32_t number : {__NR_read, __NR_write, __NR_futex, __NR_epoll_wait, __NR_getpid, __NR_openat2}) {
      EXPECT_LE(stepsOf(program, number), 16u) << name << " " << number;
    }
  }
}

// What follows is real.

}  // namespace
}  // namespace vmmhost::seccomp
