// Calls made for real by children under the policies.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <functional>
#include <string>

#include "ipc/jail/seccomp/test_calls.h"
#include "tests/support/built.h"
#include "vmmhost/fd.h"
#include "vmmhost/memory_file.h"
#include "vmmhost/seccomp.h"

namespace vmmhost::seccomp {
namespace {

constexpr std::size_t kSize = 1 << 20;

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
