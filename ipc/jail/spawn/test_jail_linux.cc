#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "ipc/jail/spawn/test_jail.h"
#include "tests/support/built.h"

namespace vmmhost::spawn {
namespace {

constexpr uid_t kOrdinaryUser = 1000;
constexpr uid_t kRootsId = 0x56489997;
constexpr int kLimitMs = 10'000;
constexpr long kSuspendSeccomp = 1 << 21;  // PTRACE_O_SUSPEND_SECCOMP

Fd openBuilt(const char* path) {
  return Fd(::open(tests::built(path).c_str(), O_RDONLY | O_CLOEXEC));
}

void write(const std::string& path, const std::string& text) {
  const Fd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  EXPECT_EQ(::write(file.get(), text.data(), text.size()), static_cast<ssize_t>(text.size())) << path;
}

}  // namespace

Network makeNetwork(bool hasUserNamespace) {
  int done[2];
  EXPECT_EQ(::pipe2(done, O_CLOEXEC), 0);
  const Fd doneRead(done[0]);
  Fd doneWrite(done[1]);
  // By the bare call: behind fork() a sanitizer may have a thread of its own, and then no user namespace can be made.
  const unsigned long flags = CLONE_NEWNET | (hasUserNamespace ? CLONE_NEWUSER : 0) | SIGCHLD;
  const auto pid = static_cast<pid_t>(::syscall(SYS_clone, flags, nullptr, nullptr, nullptr, nullptr));
  if (pid == 0) {
    char byte;
    ::syscall(SYS_close, done[1]);
    ::syscall(SYS_read, done[0], &byte, 1);
    ::syscall(SYS_exit_group, 0);
  }
  EXPECT_GT(pid, 0);
  const std::string folder = "/proc/" + std::to_string(pid);
  if (hasUserNamespace) {
    // Another id than jails have, so that it cannot be mixed up with theirs.
    write(folder + "/setgroups", "deny");
    write(folder + "/uid_map", "77 " + std::to_string(::geteuid()) + " 1\n");
    write(folder + "/gid_map", "78 " + std::to_string(::getegid()) + " 1\n");
  }
  Network made;
  made.network.reset(::open((folder + "/ns/net").c_str(), O_RDONLY | O_CLOEXEC));
  if (hasUserNamespace) {
    made.user.reset(::open((folder + "/ns/user").c_str(), O_RDONLY | O_CLOEXEC));
  }
  doneWrite.reset();
  EXPECT_EQ(::waitpid(pid, nullptr, 0), pid);
  return made;
}

// Opened while this is root, if it is: the folders that they lie in may be closed to others.
JailTest::JailTest()
    : executable_(openBuilt("bin/jail-prober")),
      program_(openBuilt("bin/jail-program")),
      null_(::open("/dev/null", O_RDWR | O_CLOEXEC)) {
  prepare();
}

bool JailTest::isRoot() const {
  return ::geteuid() == 0;
}

void JailTest::prepare() {
  request_ = {};
  request_.name = "prober";
  request_.executable = executable_.get();
  request_.argv = {"jail-prober"};
  request_.jail.uid = isRoot() ? kRootsId : ::geteuid();
  request_.jail.gid = isRoot() ? kRootsId : ::getegid();
}

void JailTest::asBoth(const std::function<void()>& body) {
  {
    const testing::ScopedTrace who(__FILE__, __LINE__, "as the caller");
    body();
  }
  if (!isRoot()) {
    return;
  }
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setgroups(0, nullptr) != 0 || ::setresgid(kOrdinaryUser, kOrdinaryUser, kOrdinaryUser) != 0 ||
        ::setresuid(kOrdinaryUser, kOrdinaryUser, kOrdinaryUser) != 0 || ::prctl(PR_SET_DUMPABLE, 1) != 0) {
      ::_exit(99);
    }
    const testing::ScopedTrace who(__FILE__, __LINE__, "as an ordinary user");
    socket_.reset();
    prepare();
    const bool hadFailed = HasFailure();
    body();
    std::fflush(nullptr);
    ::_exit(!hadFailed && HasFailure() ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << "as an ordinary user; what failed is told above";
  prepare();
}

Child JailTest::start() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    throw systemError("socketpair", errno);
  }
  socket_.reset(ends[0]);
  remote_.reset(ends[1]);
  Request request = request_;
  const Passed usual[] = {{null_.get(), 0}, {null_.get(), 1}, {2, 2}, {remote_.get(), 3}};
  request.descriptors.insert(request.descriptors.begin(), std::begin(usual), std::end(usual));
  Child child = begin(request);
  remote_.reset();
  for (;;) {
    pollfd ready = {child.statusFd(), POLLIN, 0};
    ::poll(&ready, 1, kLimitMs);
    if (child.executed()) {
      return child;
    }
  }
}

std::string JailTest::refusal() {
  try {
    start();
  } catch (const Error& error) {
    return error.message() + " | " + error.hint();
  }
  return "started";
}

prober::Answer JailTest::order(prober::Kind kind, long number, std::vector<Argument> arguments) {
  prober::Order order;
  order.kind = kind;
  order.number = static_cast<std::uint32_t>(number);
  std::size_t used = 0;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const Argument& argument = arguments[i];
    order.arguments[i] = argument.isPointer ? used : argument.number;
    if (argument.isPointer) {
      EXPECT_LE(used + argument.text.size(), sizeof(order.data));
      order.pointers |= 1u << i;
      std::memcpy(order.data + used, argument.text.data(), argument.text.size());
      used += (argument.text.size() + 7) / 8 * 8;
    }
  }
  prober::Answer answer;
  answer.result = kDied;
  EXPECT_EQ(::send(socket_.get(), &order, sizeof(order), MSG_NOSIGNAL), static_cast<ssize_t>(sizeof(order)));
  prober::Answer said;
  if (::recv(socket_.get(), &said, sizeof(said), MSG_WAITALL) == static_cast<ssize_t>(sizeof(said))) {
    answer = said;
  }
  return answer;
}

prober::Answer JailTest::call(long number, std::vector<Argument> arguments) {
  return order(prober::Kind::kCall, number, std::move(arguments));
}

std::int64_t JailTest::resultOf(long number, std::vector<Argument> arguments) {
  const prober::Answer answer = call(number, std::move(arguments));
  return answer.result == -1 ? -answer.error : answer.result;
}

int JailTest::statusInChild(long number, std::vector<Argument> arguments) {
  const prober::Answer begun = order(prober::Kind::kCallInChild, number, std::move(arguments));
  EXPECT_GT(begun.result, 0) << std::strerror(begun.error);
  const prober::Answer ended =
      call(SYS_wait4, {Argument(static_cast<unsigned long>(begun.result)), Argument::room(sizeof(int)), 0, 0});
  EXPECT_EQ(ended.result, begun.result);
  int status = 0;
  std::memcpy(&status, ended.data, sizeof(status));
  return status;
}

bool JailTest::isForbidden(long number, std::vector<Argument> arguments) {
  Child child = start();
  if (call(number, std::move(arguments)).result != kDied) {
    return false;
  }
  const Child::Exit exit = waitFor(child);
  return exit.kind == Child::Exit::Kind::kSignal && exit.value == SIGSYS;
}

Child::Exit JailTest::waitFor(Child& child) {
  pollfd ready = {child.pidfd(), POLLIN, 0};
  EXPECT_EQ(::poll(&ready, 1, kLimitMs), 1);
  return child.reap().value_or(Child::Exit{});
}

std::string JailTest::violationsOf(const confinement::Expectation& expected) {
  std::string text;
  for (const std::string& violation : confinement::verify(expected).violations) {
    text += violation + "\n";
  }
  return text;
}

WithoutFilters::WithoutFilters(pid_t pid) : pid_(pid) {
  EXPECT_EQ(::ptrace(PTRACE_SEIZE, pid, nullptr, kSuspendSeccomp), 0) << std::strerror(errno);
}

WithoutFilters::~WithoutFilters() {
  ::ptrace(PTRACE_INTERRUPT, pid_, nullptr, nullptr);
  int status = 0;
  ::waitpid(pid_, &status, __WALL);
  ::ptrace(PTRACE_DETACH, pid_, nullptr, nullptr);
}

}  // namespace vmmhost::spawn
