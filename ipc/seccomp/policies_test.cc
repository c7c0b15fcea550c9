// The tables, evaluated; and the same calls made for real by children under the policy.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
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
#include <functional>
#include <string>

#include "ipc/seccomp/test_calls.h"
#include "tests/support/built.h"
#include "vmmhost/error.h"
#include "vmmhost/fd.h"
#include "vmmhost/memory_file.h"
#include "vmmhost/rings.h"
#include "vmmhost/seccomp.h"

namespace vmmhost::seccomp {
namespace {

constexpr int kExecutable = 250;
constexpr std::uint32_t kX32 = 0x40000000;
constexpr std::size_t kSize = 1 << 20;
constexpr unsigned kNoExecSeal = 0x0008;  // MFD_NOEXEC_SEAL, Linux 6.3

std::vector<sock_filter> programOf(const char* name) {
  return compile(basePolicy(name, {.executableDescriptor = kExecutable}));
}
// For workers of plugins that were built for version 1.1 of the interface.
std::vector<sock_filter> oldProgramOf(const char* name, bool hasProc = false) {
  BaseParameters parameters{.executableDescriptor = kExecutable, .makesMemoryFiles = true, .makesEpolls = true};
  parameters.hasProc = hasProc;
  return compile(basePolicy(name, parameters));
}

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

// Runs `work` in a child under a policy; its wait status. The child ends with what `work` returns.
int statusUnder(const std::vector<sock_filter>& program, const std::function<int()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    const rlimit noCore{0, 0};
    ::setrlimit(RLIMIT_CORE, &noCore);
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || install(program, false) != 0) {
      ::_exit(120);
    }
    ::syscall(SYS_exit_group, work());  // raw: a sanitizer's _exit does more than the policy may allow
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

int statusUnder(const char* policy, const std::function<int()>& work) {
  return statusUnder(programOf(policy), work);
}

bool isKilledBySeccomp(int status) {
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

int raw(const Call& call) {
  const auto& a = call.args;
  return ::syscall(static_cast<long>(call.number), a[0], a[1], a[2], a[3], a[4], a[5]) < 0 ? errno : 0;
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

TEST(UnderPolicy, deniedCalls_endTheProcess) {
  for (const char* name : {"worker-static", "worker-dynamic", "worker-system"}) {
    for (const Call& call : deniedToAll()) {
      EXPECT_TRUE(isKilledBySeccomp(statusUnder(name, [&] { return raw(call); }))) << name << ": " << call.name;
    }
  }
  for (const Call& call : deniedToStatic()) {
    EXPECT_TRUE(isKilledBySeccomp(statusUnder("worker-static", [&] { return raw(call); }))) << call.name;
  }
}

TEST(UnderPolicy, callsThatFail_giveTheirErrno) {
  EXPECT_EQ(statusUnder("worker-static", [] { return raw({"", __NR_clone3}); }), ENOSYS << 8);
  EXPECT_EQ(statusUnder("worker-static", [] { return raw({"", __NR_readlinkat}); }), ENOENT << 8);
  EXPECT_EQ(statusUnder("worker-dynamic", [] { return raw({"", __NR_clone, {SIGCHLD}}); }), EPERM << 8);
  for (const char* name : {"worker-static", "worker-system"}) {
    const auto zero = [] { return raw({"", __NR_fallocate, {3, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, 1}}); };
    EXPECT_EQ(statusUnder(name, zero), EOPNOTSUPP << 8) << name;
  }
  EXPECT_EQ(statusUnder("worker-system", [] { return raw({"", __NR_io_uring_setup, {1}}); }), ENOSYS << 8);
}

#if defined(__x86_64__)
TEST(UnderPolicy, x32Number_endsTheProcess) {
  EXPECT_TRUE(isKilledBySeccomp(statusUnder("worker-static", [] { return raw({"", kX32 + __NR_getpid}); })));
}

int getpidThroughInt80() {
  long result = 20;  // getpid of the i386 table
  asm volatile("int $0x80" : "+a"(result) : : "r8", "r9", "r10", "r11", "memory");
  return result > 0 ? 0 : 1;
}

TEST(UnderPolicy, int80_endsTheProcess) {
  const int status = statusUnder("worker-static", getpidThroughInt80);
  ASSERT_TRUE(WIFSIGNALED(status));
  // A kernel without 32-bit emulation has no such gate.
  EXPECT_TRUE(WTERMSIG(status) == SIGSYS || WTERMSIG(status) == SIGSEGV) << WTERMSIG(status);
}
#endif

int useWhatIsAllowed(int memory, int poll) {
  const int events = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  epoll_event event{};
  event.events = EPOLLIN;
  std::uint64_t one = 1;
  if (::epoll_ctl(poll, EPOLL_CTL_ADD, events, &event) != 0 || ::write(events, &one, 8) != 8 ||
      ::epoll_wait(poll, &event, 1, 1000) != 1 || ::read(events, &one, 8) != 8) {
    return 1;
  }
  if (::fcntl(events, F_GETFL) < 0 || ::fcntl(events, F_SETFD, FD_CLOEXEC) < 0) {
    return 2;
  }
  if ((::fcntl(memory, F_GET_SEALS) & F_SEAL_SEAL) == 0) {
    return 3;
  }
  void* mapped = ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
  if (mapped == MAP_FAILED || ::madvise(mapped, kSize, MADV_DONTNEED) != 0 || ::munmap(mapped, kSize) != 0) {
    return 4;
  }
  if (::prctl(PR_SET_NAME, "tested") != 0 || ::prctl(PR_SET_DUMPABLE, 0) != 0 || ::raise(SIGCONT) != 0) {
    return 5;
  }
  rlimit limit{};
  struct stat status {};
  return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 && ::fstat(memory, &status) == 0 && ::close(memory) == 0 ? 0 : 6;
}

TEST(UnderPolicy, allowedCalls_work) {
  const Fd memory = makeMemoryFile("guest", kSize);
  const Fd poll(::epoll_create1(EPOLL_CLOEXEC));
  for (const char* name : {"worker-static", "worker-dynamic", "worker-system"}) {
    EXPECT_EQ(statusUnder(name, [&] { return useWhatIsAllowed(memory.get(), poll.get()); }), 0) << name;
  }
}

TEST(UnderPolicy, oldPolicies_letWorkersMakeFilesOfMemory) {
  for (const char* name : {"worker-static", "worker-dynamic", "worker-system"}) {
    for (const unsigned seal : {0u, kNoExecSeal}) {
      const Fd known(::memfd_create("known", MFD_CLOEXEC | seal));
      if (!known) {
        continue;  // a kernel before 6.3
      }
      const auto work = [seal] {
        const int memory = ::memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING | seal);
        return ::pwrite(memory, "", 1, kSize - 1) == 1 && ::fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK) == 0 ? 0 : 1;
      };
      EXPECT_EQ(statusUnder(oldProgramOf(name, seal != 0), work), 0) << name << ' ' << seal;
    }
  }
}

TEST(UnderPolicy, furtherFilter_takesRightsAwayAndGivesNoneBack) {
  Policy nothingButLeaving;
  nothingButLeaving.name = "leaving";
  nothingButLeaving.allow = {{__NR_exit_group, {}}, {__NR_openat, {}}, {__NR_execve, {}}};
  const auto tighter = compile(nothingButLeaving);
  EXPECT_EQ(statusUnder("worker-static", [&] { return install(tighter, true); }), 0);
  EXPECT_TRUE(isKilledBySeccomp(statusUnder("worker-static", [&] {
    install(tighter, true);
    return raw({"", __NR_getpid});
  })));
  EXPECT_TRUE(isKilledBySeccomp(statusUnder("worker-static", [&] {
    install(tighter, true);
    return raw({"", __NR_execve});
  })));
}

#if !defined(VMMHOST_SANITIZED)
int startThread() {
  pthread_t thread{};
  const auto body = [](void* answer) -> void* {
    *static_cast<int*>(answer) = 42;
    return nullptr;
  };
  int answer = 0;
  if (::pthread_create(&thread, nullptr, body, &answer) != 0 || ::pthread_join(thread, nullptr) != 0) {
    return 1;
  }
  return answer == 42 ? 0 : 2;
}

TEST(UnderPolicy, threads_canBeStarted) {
  for (const char* name : {"worker-static", "worker-dynamic", "worker-system"}) {
    EXPECT_EQ(statusUnder(name, startThread), 0) << name;
  }
}
#endif

// The helper program installs the policy and executes by descriptor, as the spawn stub does.
int statusOfProgram(std::vector<const char*> arguments) {
  const std::string program = tests::built("bin/run-under-policy");
  arguments.insert(arguments.begin(), program.c_str());
  arguments.push_back(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    ::execv(program.c_str(), const_cast<char* const*>(arguments.data()));
    ::_exit(126);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

TEST(UnderPolicy, systemWorker_runsProgramsThatRunPrograms) {
  EXPECT_EQ(statusOfProgram({"worker-system", "/bin/sh", "-c", "test \"$(echo ok | cat)\" = ok"}), 0);
}

TEST(UnderPolicy, programsThatExecuteOthers_endUnderTheOtherPolicies) {
  EXPECT_TRUE(isKilledBySeccomp(statusOfProgram({"worker-static", "/bin/sh", "-c", "exec true"})));
  EXPECT_TRUE(isKilledBySeccomp(statusOfProgram({"worker-dynamic", "/bin/sh", "-c", "exec true"})));
}

TEST(UnderPolicy, executableDescriptor_isTheOnlyOneThatRuns) {
  // As the spawn stub does it: the descriptor's number is the limit, so that it cannot be opened a second time.
  const auto execute = [](int target) {
    const int file = ::open("/bin/true", O_RDONLY | O_CLOEXEC);
    ::dup3(file, target, O_CLOEXEC);
    return file;
  };
  const auto child = [&](int target) {
    const auto program = programOf("worker-system");
    const pid_t pid = ::fork();
    if (pid == 0) {
      execute(target);
      ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
      if (install(program, false) != 0) {
        ::_exit(120);
      }
      const char* arguments[] = {"true", nullptr};
      ::syscall(SYS_execveat, target, "", arguments, nullptr, AT_EMPTY_PATH);
      ::_exit(121);
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    return status;
  };
  EXPECT_EQ(child(kExecutable), 0);
  EXPECT_TRUE(isKilledBySeccomp(child(kExecutable - 1)));
}

}  // namespace
}  // namespace vmmhost::seccomp
