// A starter that dies while its child is on the way into the jail: held up by a debugger before each system call of the
// child in turn. Nothing of it may live afterwards.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "ipc/jail/spawn/spawn.h"
#include "ipc/jail/spawn/test_jail.h"
#include "ipc/rpc/connection.h"
#include "tests/support/built.h"

namespace vmmhost::spawn {
namespace {

constexpr int kSystemCallStop = SIGTRAP | 0x80;  // PTRACE_O_TRACESYSGOOD
constexpr int kLimitMs = 10'000;
constexpr long kOptions =
    PTRACE_O_TRACEFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;

bool isEvent(int status, int event) {
  return status >> 8 == (SIGTRAP | (event << 8));
}

class OrphanTest : public testing::Test {
 protected:
  OrphanTest()
      : executable_(::open(tests::built("bin/jail-inmate").c_str(), O_RDONLY | O_CLOEXEC)),
        null_(::open("/dev/null", O_RDWR | O_CLOEXEC)) {
    // Its other end stays here, so that the inmate does not end by itself when its starter is gone.
    rpc::SocketPair sockets = rpc::makeSocketPair();
    socket_ = std::move(sockets.local);
    remote_ = std::move(sockets.remote);
    request_.executable = executable_.get();
    request_.argv = {"jail-inmate"};
    request_.descriptors = {{null_.get(), 0}, {null_.get(), 1}, {2, 2}, {remote_.get(), 3}};
    request_.jail.uid = ::geteuid() == 0 ? 0x56489998 : ::geteuid();
    request_.jail.gid = ::geteuid() == 0 ? 0x56489998 : ::getegid();
  }

  // A traced process that begins a child and waits for its own end. With `others` it has another child then, which has
  // inherited what it has open, and stays.
  pid_t startStarter(bool others) {
    const pid_t starter = ::fork();
    if (starter == 0) {
      ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
      ::raise(SIGSTOP);
      try {
        const Child child = begin(request_);
        if (others) {
          ::fork();
        }
        for (;;) {
          ::pause();
        }
      } catch (const Error&) {
      }
      ::_exit(1);
    }
    int status = 0;
    EXPECT_EQ(::waitpid(starter, &status, __WALL), starter);
    EXPECT_EQ(::ptrace(PTRACE_SETOPTIONS, starter, nullptr, kOptions), 0);
    ::ptrace(PTRACE_CONT, starter, nullptr, nullptr);
    return starter;
  }

  // The next child of a starter, before its first instruction, traced. The starter goes on, traced or not.
  static pid_t childOf(pid_t starter, bool letGo = false) {
    int status = 0;
    for (;;) {
      if (::waitpid(starter, &status, __WALL) != starter || !WIFSTOPPED(status)) {
        return -1;
      }
      if (isEvent(status, PTRACE_EVENT_FORK)) {
        break;
      }
      ::ptrace(PTRACE_CONT, starter, nullptr, nullptr);
    }
    unsigned long child = 0;
    ::ptrace(PTRACE_GETEVENTMSG, starter, nullptr, &child);
    const auto pid = static_cast<pid_t>(child);
    EXPECT_EQ(::waitpid(pid, &status, __WALL), pid);
    ::ptrace(letGo ? PTRACE_DETACH : PTRACE_CONT, starter, nullptr, nullptr);
    return pid;
  }

  // What a process that joins namespaces makes: its sibling. Before its first instruction, traced.
  static pid_t siblingOf(pid_t joiner) {
    unsigned long sibling = 0;
    int status = 0;
    ::ptrace(PTRACE_GETEVENTMSG, joiner, nullptr, &sibling);
    EXPECT_EQ(::waitpid(static_cast<pid_t>(sibling), &status, __WALL), static_cast<pid_t>(sibling));
    return static_cast<pid_t>(sibling);
  }

  static bool isGone(const Fd& pidfd) {
    pollfd gone = {pidfd.get(), POLLIN, 0};
    const bool isGone = ::poll(&gone, 1, kLimitMs) == 1;
    ::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);
    return isGone;
  }

  static Fd pidfdOf(pid_t pid) { return Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))); }

  // Lets the child go on to where it enters its system call number `call`. False: it was executed before.
  static bool runToCall(pid_t child, int call) {
    for (int stops = 0; stops < 2 * call - 1;) {
      int status = 0;
      if (::ptrace(PTRACE_SYSCALL, child, nullptr, nullptr) != 0 || ::waitpid(child, &status, __WALL) != child ||
          !WIFSTOPPED(status) || isEvent(status, PTRACE_EVENT_EXEC)) {
        return false;
      }
      stops += WSTOPSIG(status) == kSystemCallStop ? 1 : 0;
    }
    return true;
  }

  static void end(pid_t traced) {
    ::kill(traced, SIGKILL);
    int status = 0;
    while (::waitpid(traced, &status, __WALL) == traced && WIFSTOPPED(status)) {
    }
  }

  // Has a starter die before each system call of its child in turn.
  void dieAtEachCall(bool others) {
    int call = 1;
    for (bool isUnderWay = true; isUnderWay; ++call) {
      const pid_t starter = startStarter(others);
      const pid_t child = childOf(starter);
      ASSERT_GT(child, 0) << "nothing was begun";
      const pid_t other = others ? childOf(starter) : 0;
      ASSERT_GE(other, 0) << "there is no other child";
      const Fd pidfd = pidfdOf(child);
      ASSERT_TRUE(pidfd);
      isUnderWay = runToCall(child, call);
      end(starter);
      ::ptrace(PTRACE_DETACH, child, nullptr, nullptr);  // fails where it is gone already
      const bool hasGone = isGone(pidfd);
      ::waitpid(child, nullptr, __WALL | WNOHANG);
      if (others) {
        end(other);  // until now it was stopped, and held what it had
      }
      ASSERT_TRUE(hasGone) << "it lives on when its starter dies before system call " << call;
    }
    EXPECT_GT(call, 50) << "the steps into a jail";
  }

  void joinNetwork() {
    network_ = makeNetwork(::geteuid() != 0);
    request_.jail.network = {Namespace::How::kJoined, network_.network.get()};
    if (network_.user) {
      request_.jail.user = {Namespace::How::kJoined, network_.user.get()};
    }
  }

  Fd executable_, null_, socket_, remote_;
  Network network_;
  Request request_;
};

TEST_F(OrphanTest, starterThatDiesAtAnyMoment_leavesNothingAlive) {
  dieAtEachCall(false);
}

// Its ends of the pipes to the child do not close then.
TEST_F(OrphanTest, starterThatDiesAtAnyMoment_leavesNothingAlive_whoeverHoldsWhatItHad) {
  dieAtEachCall(true);
}

TEST_F(OrphanTest, starterThatDies_whileNamespacesAreJoined_leavesNothingAlive) {
  joinNetwork();
  int call = 1;
  for (bool isUnderWay = true; isUnderWay; ++call) {
    const pid_t starter = startStarter(false);
    const pid_t joiner = childOf(starter, true);
    ASSERT_GT(joiner, 0) << "nothing was begun";
    const Fd ofJoiner = pidfdOf(joiner);
    Fd ofSibling;
    // To where it enters its system call of that number; what it made on the way goes on by itself.
    for (int stops = 0; isUnderWay && stops < 2 * call - 1;) {
      int status = 0;
      if (::ptrace(PTRACE_SYSCALL, joiner, nullptr, nullptr) != 0 || ::waitpid(joiner, &status, __WALL) != joiner ||
          !WIFSTOPPED(status)) {
        isUnderWay = false;
      } else if (isEvent(status, PTRACE_EVENT_CLONE)) {
        const pid_t sibling = siblingOf(joiner);
        ofSibling = pidfdOf(sibling);
        ::ptrace(PTRACE_DETACH, sibling, nullptr, nullptr);
      } else {
        stops += WSTOPSIG(status) == kSystemCallStop ? 1 : 0;
      }
    }
    end(starter);
    ::ptrace(PTRACE_DETACH, joiner, nullptr, nullptr);
    ASSERT_TRUE(isGone(ofJoiner)) << "what joins lives on when its starter dies before system call " << call;
    ASSERT_TRUE(!ofSibling || isGone(ofSibling)) << "what it made lives on, from system call " << call;
  }
  EXPECT_GT(call, 5) << "the steps of joining";
}

TEST_F(OrphanTest, starterThatDies_leavesNothingAliveThatHasJoinedNamespaces) {
  joinNetwork();
  int call = 1;
  for (bool isUnderWay = true; isUnderWay; ++call) {
    const pid_t starter = startStarter(false);
    const pid_t joiner = childOf(starter, true);
    ASSERT_GT(joiner, 0) << "nothing was begun";
    int status = 0;
    do {
      ::ptrace(PTRACE_CONT, joiner, nullptr, nullptr);
      ASSERT_EQ(::waitpid(joiner, &status, __WALL), joiner);
      ASSERT_TRUE(WIFSTOPPED(status));
    } while (!isEvent(status, PTRACE_EVENT_CLONE));
    const pid_t child = siblingOf(joiner);
    const Fd pidfd = pidfdOf(child);
    ::ptrace(PTRACE_DETACH, joiner, nullptr, nullptr);
    isUnderWay = runToCall(child, call);
    end(starter);
    ::ptrace(PTRACE_DETACH, child, nullptr, nullptr);
    ASSERT_TRUE(isGone(pidfd)) << "it lives on when its starter dies before system call " << call;
  }
  EXPECT_GT(call, 50) << "the steps into a jail";
}

}  // namespace
}  // namespace vmmhost::spawn
