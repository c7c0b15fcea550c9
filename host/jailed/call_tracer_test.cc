// Real processes, ended by real filters, and reaped by the thread that made them while another one traces them.
#include "host/jailed/call_tracer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <functional>
#include <string>
#include <vector>

#include "vmmhost/error.h"
#include "vmmhost/fd.h"

#if defined(__x86_64__)

namespace vmmhost::jailed {
namespace {

using seccomp::PolicyChoice;

// A child that runs `work` under a policy once it is told to, and exits with what it returns.
class Traced {
 public:
  Traced(const char* policy, const std::function<int()>& work) {
    const auto program = seccomp::compile(seccomp::basePolicy(policy, {}));
    int go[2];
    EXPECT_EQ(::pipe2(go, O_CLOEXEC), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      char byte = 0;
      const rlimit noCore{0, 0};
      ::setrlimit(RLIMIT_CORE, &noCore);
      ::close(go[1]);
      if (::read(go[0], &byte, 1) != 1 || ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
          seccomp::install(program, false) != 0) {
        ::_exit(120);
      }
      ::syscall(SYS_exit_group, work());
    }
    ::close(go[0]);
    go_.reset(go[1]);
    pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  }

  pid_t pid() const { return pid_; }
  // Its end once it was let go on, as spawn::Child looks at it: the signal behind 128.
  int end() {
    EXPECT_EQ(::write(go_.get(), "g", 1), 1);
    return reap();
  }
  int reap() {
    pollfd ended = {pidfd_.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&ended, 1, 60'000), 1);
    siginfo_t info{};
    EXPECT_EQ(::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED), 0) << errno;
    return info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
  }

 private:
  pid_t pid_ = -1;
  Fd go_;
  Fd pidfd_;
};

constexpr int kForbidden = 128 + SIGSYS;

int forbiddenCall() {
  return ::syscall(SYS_socket, AF_INET, 2, 3, 0x1234567890, 5, 6) < 0 ? 1 : 2;
}

void expectIsForbiddenCall(const TracedCall& call) {
  EXPECT_EQ(call.architecture, static_cast<std::uint32_t>(AUDIT_ARCH_X86_64));
  EXPECT_EQ(call.number, SYS_socket);
  EXPECT_EQ(call.arguments, (std::array<std::uint64_t, 6>{AF_INET, 2, 3, 0x1234567890, 5, 6}));
  EXPECT_FALSE(call.name.empty());
}

TEST(CallTracer, callOfTheFirstThread_isSeenWithItsArguments_andItsEndIsReaped) {
  Traced traced("worker-static", forbiddenCall);
  CallTracer tracer;
  tracer.follow(traced.pid());
  EXPECT_EQ(traced.end(), kForbidden);
  pollfd news = {tracer.descriptor(), POLLIN, 0};
  EXPECT_EQ(::poll(&news, 1, 0), 1) << "it is there before the process has ended";
  const auto calls = tracer.take();
  ASSERT_EQ(calls.size(), 1u);
  expectIsForbiddenCall(calls[0]);
  EXPECT_EQ(calls[0].process, traced.pid());
  EXPECT_EQ(calls[0].thread, traced.pid());
  EXPECT_TRUE(tracer.take().empty()) << "once";
  EXPECT_EQ(::poll(&news, 1, 0), 0);
}

#if !defined(VMMHOST_SANITIZED)
TEST(CallTracer, callOfAnotherThread_isSeen_andTheThreadsThatEndWithItAreNone) {
  Traced traced("worker-static", [] {
    const auto wait = [](void*) -> void* {
      ::syscall(SYS_ppoll, nullptr, 0, nullptr, nullptr, 0);
      return nullptr;
    };
    const auto call = [](void*) -> void* {
      forbiddenCall();
      return nullptr;
    };
    pthread_t threads[4];
    for (unsigned index = 0; index < 4; ++index) {
      ::pthread_create(&threads[index], nullptr, index == 2 ? call : wait, nullptr);
    }
    ::pthread_join(threads[0], nullptr);
    return 0;
  });
  CallTracer tracer;
  tracer.follow(traced.pid());
  EXPECT_EQ(traced.end(), kForbidden);
  const auto calls = tracer.take();
  ASSERT_EQ(calls.size(), 1u);
  expectIsForbiddenCall(calls[0]);
  EXPECT_EQ(calls[0].process, traced.pid());
  EXPECT_NE(calls[0].thread, traced.pid());
}
#endif

TEST(CallTracer, callOfAChild_isSeen_andItsParentGoesOn) {
  for (const int flags : {0, CLONE_VM | CLONE_VFORK}) {
    Traced traced("worker-system", [flags] {
      // Not the bare call of vfork: both would return from syscall() over one stack.
      const long child = flags == 0 ? ::syscall(SYS_fork) : ::vfork();
      if (child == 0) {
        forbiddenCall();
        ::syscall(SYS_exit_group, 1);
      }
      int status = 0;
      return ::syscall(SYS_wait4, child, &status, 0, nullptr) == child && WIFSIGNALED(status) ? WTERMSIG(status) : 1;
    });
    CallTracer tracer;
    tracer.follow(traced.pid());
    EXPECT_EQ(traced.end(), SIGSYS);
    const auto calls = tracer.take();
    ASSERT_EQ(calls.size(), 1u);
    expectIsForbiddenCall(calls[0]);
    EXPECT_NE(calls[0].process, traced.pid());
    EXPECT_EQ(calls[0].process, calls[0].thread);
  }
}

TEST(CallTracer, processThatMakesNoForbiddenCall_endsAsOtherwise) {
  Traced traced("worker-static", [] { return 7; });
  CallTracer tracer;
  tracer.follow(traced.pid());
  EXPECT_EQ(traced.end(), 7);
  EXPECT_TRUE(tracer.take().empty());
}

TEST(CallTracer, signalOfTheSameNumber_thatWasSent_isNoCall) {
  Traced traced("worker-system", [] { return static_cast<int>(::syscall(SYS_kill, ::getpid(), SIGSYS)); });
  CallTracer tracer;
  tracer.follow(traced.pid());
  EXPECT_EQ(traced.end(), kForbidden);
  EXPECT_TRUE(tracer.take().empty());
}

volatile sig_atomic_t received = 0;

TEST(CallTracer, signals_arriveEachOnce) {
  constexpr int kSignals = 2000;
  Traced traced("worker-static", [] {
    ::signal(SIGUSR1, [](int) { received = received + 1; });
    for (int count = 0; count < kSignals; ++count) {
      ::raise(SIGUSR1);
    }
    return received == kSignals ? 0 : 1;
  });
  CallTracer tracer;
  tracer.follow(traced.pid());
  EXPECT_EQ(traced.end(), 0);
  EXPECT_TRUE(tracer.take().empty());
}

TEST(CallTracer, processThatIsKilled_endsAsOtherwise) {
  Traced traced("worker-static",
                [] { return static_cast<int>(::syscall(SYS_ppoll, nullptr, 0, nullptr, nullptr, 0)); });
  CallTracer tracer;
  tracer.follow(traced.pid());
  ::kill(traced.pid(), SIGKILL);
  EXPECT_EQ(traced.reap(), 128 + SIGKILL);
  EXPECT_TRUE(tracer.take().empty());
}

TEST(CallTracer, manyProcesses_areFollowedToTheLast) {
  constexpr int kProcesses = 50;
  Traced traced("worker-system", [] {
    for (int count = 0; count < kProcesses; ++count) {
      const long child = ::syscall(SYS_fork);
      if (child == 0) {
        forbiddenCall();
      }
      ::syscall(SYS_wait4, child, nullptr, 0, nullptr);
    }
    return 0;
  });
  CallTracer tracer;
  tracer.follow(traced.pid());
  EXPECT_EQ(traced.end(), 0);
  EXPECT_EQ(tracer.take().size(), std::size_t{kProcesses});
}

// A jail whose processes end without end fills nobody's memory, and what it ends of itself is told all the same.
TEST(CallTracer, callsThatNobodyTakes_areKeptUpToANumber_butForThoseOfTheProcessItself) {
  constexpr int kProcesses = 100;
  Traced traced("worker-system", [] {
    for (int count = 0; count < kProcesses; ++count) {
      const long child = ::syscall(SYS_fork);
      if (child == 0) {
        forbiddenCall();
      }
      ::syscall(SYS_wait4, child, nullptr, 0, nullptr);
    }
    return forbiddenCall();
  });
  CallTracer tracer;
  tracer.follow(traced.pid());
  EXPECT_EQ(traced.end(), kForbidden);
  const auto calls = tracer.take();
  ASSERT_EQ(calls.size(), 65u);
  EXPECT_EQ(calls.back().process, traced.pid());
}

TEST(CallTracer, processThatIsTracedAlready_isRefused_withTheReason) {
  int told[2];
  ASSERT_EQ(::pipe2(told, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const char byte = ::ptrace(PTRACE_TRACEME, 0, 0, 0) == 0 ? 'y' : 'n';
    (void)!::write(told[1], &byte, 1);
    ::pause();
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(told[0], &byte, 1), 1);
  ASSERT_EQ(byte, 'y');
  {
    CallTracer tracer;
    try {
      tracer.follow(child);
      ADD_FAILURE() << "it was followed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
      EXPECT_NE(error.message().find("Operation not permitted"), std::string::npos) << error.message();
      EXPECT_NE(error.hint().find("--explain-jail"), std::string::npos);
    }
  }
  ::kill(child, SIGKILL);
  EXPECT_EQ(::waitpid(child, nullptr, 0), child);
  ::close(told[0]);
  ::close(told[1]);
}

TracedCall callOf(std::int64_t number, std::array<std::uint64_t, 6> arguments = {}) {
  TracedCall call;
  call.process = 12;
  call.thread = 14;
  call.name = "vcpu0";
  call.architecture = AUDIT_ARCH_X86_64;
  call.number = number;
  call.arguments = arguments;
  return call;
}

TEST(ForbiddenCall, isExplainedByTheGrantsThatAllowIt) {
  const PolicyChoice none = PolicyChoice::ofGrants(seccomp::grant::kKvm);
  EXPECT_EQ(explain(callOf(SYS_socket, {1, 0x80001}), none, {}),
            "process 12 (vcpu0), thread 14: system call 41 (socket) with 0x1, 0x80001, 0x0, 0x0, 0x0, 0x0; no grant "
            "allows it");
  EXPECT_NE(explain(callOf(SYS_execve), none, {}).find("; allowed by the grant programs"), std::string::npos);
  EXPECT_NE(explain(callOf(SYS_openat, {3, 0, O_RDONLY}), "worker-static", {})
                .find("; allowed by the grants files, temporary-files"),
            std::string::npos);
  EXPECT_NE(
      explain(callOf(SYS_openat, {3, 0, O_RDWR}), "worker-static", {}).find("; allowed by the grant temporary-files"),
      std::string::npos);
  EXPECT_NE(explain(callOf(SYS_io_uring_enter, {4, 1, 0, 0, 0, 8}), none, {}).find("the grant rings"),
            std::string::npos);
  TracedCall alone = callOf(SYS_getpid);
  alone.thread = alone.process;
  const std::string own = explain(alone, "worker-static", {});
  EXPECT_EQ(own.find("thread"), std::string::npos) << own;
  EXPECT_NE(own.find("its policy (worker-static) allows it, a filter that it made itself does not"), std::string::npos);
  TracedCall foreign = callOf(SYS_getpid);
  foreign.architecture = AUDIT_ARCH_I386;
  EXPECT_NE(explain(foreign, "worker-system", {}).find("of 32-bit programs"), std::string::npos);
  EXPECT_NE(explain(foreign, "worker-system", {}).find("no grant allows it"), std::string::npos);
}

}  // namespace
}  // namespace vmmhost::jailed

#endif
