#include "ipc/jail/spawn/spawn.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <functional>
#include <string>
#include <thread>
#include <utility>

#include "ipc/rpc/connection.h"
#include "tests/support/built.h"
#include "vmmhost/confinement.h"
#include "vmmhost/rings.h"

namespace vmmhost::spawn {
namespace {

class SpawnTest : public testing::Test {
 protected:
  SpawnTest()
      : executable_(::open(tests::built("bin/jail-inmate").c_str(), O_RDONLY | O_CLOEXEC)),
        null_(::open("/dev/null", O_RDWR | O_CLOEXEC)) {
    connect();
    request_.executable = executable_.get();
    request_.argv = {"jail-inmate"};
    request_.jail.uid = ::geteuid() == 0 ? 0x76489999 : ::geteuid();
    request_.jail.gid = ::geteuid() == 0 ? 0x76489999 : ::getegid();
  }

  void connect() {
    rpc::SocketPair sockets = rpc::makeSocketPair();
    ::fcntl(sockets.local.get(), F_SETFL, 0);
    socket_ = std::move(sockets.local);
    remote_ = std::move(sockets.remote);
    request_.descriptors = {{null_.get(), 0}, {null_.get(), 1}, {2, 2}, {remote_.get(), 3}};
  }

  Child start() {
    Child child = begin(request_);
    for (;;) {
      pollfd ready = {child.statusFd(), POLLIN, 0};
      ::poll(&ready, 1, 10000);
      if (child.executed()) {
        return child;
      }
    }
  }
  std::uint32_t order(char what) {
    EXPECT_EQ(::write(socket_.get(), &what, 1), 1);
    std::uint32_t answer = 0xffff;
    EXPECT_EQ(::read(socket_.get(), &answer, sizeof(answer)), static_cast<ssize_t>(sizeof(answer)));
    return answer;
  }
  Child::Exit exitAfter(Child& child, char what) {
    EXPECT_EQ(::write(socket_.get(), &what, 1), 1);
    return waitFor(child);
  }
  static Child::Exit waitFor(Child& child) {
    pollfd ready = {child.pidfd(), POLLIN, 0};
    EXPECT_EQ(::poll(&ready, 1, 10000), 1);
    return child.reap().value_or(Child::Exit{});
  }

  // Why there is no child; "begun" if there is one.
  std::string refusal() {
    try {
      begin(request_);
    } catch (const Error& error) {
      return error.message();
    }
    return "begun";
  }

  Fd executable_, null_, socket_, remote_;
  Request request_;
};

TEST_F(SpawnTest, inmateRunsUnderItsOwnIds_withFourDescriptors) {
  Child child = start();
  EXPECT_EQ(order('u'), kInsideUid);
  EXPECT_EQ(order('n'), 4u);
}

TEST_F(SpawnTest, looksConfinedFromOutside) {
  Child child = start();
  order('u');
  confinement::Expectation expected;
  expected.pid = child.pid();
  expected.hostUid = request_.jail.uid;
  expected.hostGid = request_.jail.gid;
  struct stat info = {};
  ASSERT_EQ(::fstat(executable_.get(), &info), 0);
  expected.executableDevice = info.st_dev;
  expected.executableInode = info.st_ino;
  expected.newNamespaces = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"};
  expected.descriptors = {{0, 1, 2, 3}};
  const confinement::Report report = confinement::verify(expected);
  for (const std::string& violation : report.violations) {
    ADD_FAILURE() << violation;
  }
  EXPECT_GE(report.verified.size(), 8u);
}

TEST_F(SpawnTest, moreDescriptors_areForThoseThatAskForThem_asFarAsThereAreAny) {
  const auto limitOf = [](const Child& child) {
    rlimit limit = {};
    EXPECT_EQ(::prlimit(child.pid(), RLIMIT_NOFILE, nullptr, &limit), 0);
    EXPECT_EQ(limit.rlim_cur, limit.rlim_max);
    return limit.rlim_cur;
  };
  rlimit own = {};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &own), 0);
  {
    Child child = start();
    EXPECT_EQ(limitOf(child), 256u);
  }
  request_.jail.maxDescriptors = 900;
  // One of ours has the number that the executable is to have.
  ASSERT_GT(own.rlim_cur, 901u);
  const Fd inTheWay(::fcntl(null_.get(), F_DUPFD_CLOEXEC, 900));
  connect();
  {
    Child child = start();
    EXPECT_EQ(order('n'), 4u);
    EXPECT_EQ(limitOf(child), 900u);
    EXPECT_EQ(exitAfter(child, 'o').value, SIGSYS);
  }
}

// Carries out `body` in a process of its own, which may lower its limits for good; "" if all went well.
std::string inProcess(const std::function<void()>& body) {
  int ends[2];
  EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    std::string said;
    try {
      body();
    } catch (const Error& error) {
      said = std::string(errorCodeName(error.code())) + ": " + error.message() + " | " + error.hint();
    }
    (void)!::write(ends[1], said.data(), said.size());
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string said(4096, '\0');
  const ssize_t got = ::read(ends[0], said.data(), said.size());
  said.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  ::close(ends[0]);
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
  return said;
}

void lower(__rlimit_resource_t resource, rlim_t soft, rlim_t hard) {
  const rlimit limit = {soft, hard};
  if (::setrlimit(resource, &limit) != 0) {
    throw systemError("setrlimit", errno);
  }
}

// Of the caller's limits the hard one: what it waits for itself is no reason to give a worker less.
TEST_F(SpawnTest, descriptors_areAsManyAsTheHardLimitOfTheCallerAllows) {
  constexpr rlim_t kSoft = 300;
  for (const auto& [wanted, given] : {std::pair(900, 900), {1 << 30, 1024}}) {
    connect();
    const std::string said = inProcess([&, asked = wanted, expected = given] {
      lower(RLIMIT_NOFILE, kSoft, 1025);
      request_.jail.maxDescriptors = asked;
      request_.jail.neededDescriptors = expected;
      const Child child = start();
      rlimit limit = {};
      if (::prlimit(child.pid(), RLIMIT_NOFILE, nullptr, &limit) != 0 ||
          limit.rlim_max != static_cast<rlim_t>(expected)) {
        throw Error(ErrorCode::kInternal, "the limit is " + std::to_string(limit.rlim_max));
      }
    });
    EXPECT_EQ(said, "") << wanted;
  }
  const std::string refused = inProcess([&] {
    lower(RLIMIT_NOFILE, kSoft, 512);
    request_.jail.maxDescriptors = 5376;
    request_.jail.neededDescriptors = 1280;
    start();
  });
  EXPECT_EQ(refused.rfind("resourceExhausted: the limit of open files (RLIMIT_NOFILE) is 512; the worker of this VM "
                          "takes 1281 | ulimit -n 1281",
                          0),
            0u)
      << refused;
}

TEST_F(SpawnTest, limitsOfTheCaller_areKept_whereAWorkerCanDoWithThem) {
  using Expected = std::pair<__rlimit_resource_t, rlim_t>;
  const std::string said = inProcess([&] {
    lower(RLIMIT_CORE, 0, 0);  // as `ulimit -c 0` does it
    lower(RLIMIT_FSIZE, 1 << 20, 1 << 20);
    request_.jail.rlimits = {{RLIMIT_FSIZE, 1 << 30, 4096}, {RLIMIT_STACK, 256 << 10}};
    const Child child = start();
    for (const auto& [resource, expected] : {Expected{RLIMIT_CORE, 0}, Expected{RLIMIT_FSIZE, 1 << 20},
                                             Expected{RLIMIT_STACK, 256 << 10}, Expected{RLIMIT_MEMLOCK, 0}}) {
      rlimit limit = {};
      if (::prlimit(child.pid(), static_cast<__rlimit_resource>(resource), nullptr, &limit) != 0 ||
          limit.rlim_max != expected) {
        throw Error(ErrorCode::kInternal,
                    "limit " + std::to_string(resource) + " is " + std::to_string(limit.rlim_max));
      }
    }
  });
  EXPECT_EQ(said, "");
}

TEST_F(SpawnTest, limitsOfTheCallerThatAreTooLow_areNamedWithWhatMendsThem) {
#ifndef VMMHOST_SANITIZED  // whose runtimes take more than that themselves
  const std::string refused = inProcess([&] {
    lower(RLIMIT_DATA, 1000 << 10, 1000 << 10);
    request_.jail.rlimits = {{RLIMIT_DATA, 200 << 20, 128 << 20}};
    start();
  });
  EXPECT_EQ(
      refused.rfind("resourceExhausted: the limit of memory (RLIMIT_DATA) is 1000 KiB; the worker of this VM takes "
                    "128 MiB | ulimit -d unlimited",
                    0),
      0u)
      << refused;
#endif
  const std::string descriptors = inProcess([&] {
    lower(RLIMIT_NOFILE, 100, 100);
    start();
  });
  EXPECT_EQ(
      descriptors.rfind("resourceExhausted: the limit of open files (RLIMIT_NOFILE) is 100; starting a worker takes "
                        "306 | ulimit -n 1024",
                        0),
      0u)
      << descriptors;
}

TEST_F(SpawnTest, softLimitOfDescriptors_isNoneForAWorker) {
  const std::string said = inProcess([&] {
    rlimit own = {};
    ::getrlimit(RLIMIT_NOFILE, &own);
    lower(RLIMIT_NOFILE, 100, own.rlim_max);
    const Child child = start();
  });
  EXPECT_EQ(said, "");
}

TEST_F(SpawnTest, signalsThatWait_areFew_whateverAPlanSays) {
  for (const std::uint64_t wanted : {std::uint64_t{0}, kMaxPendingSignals, std::uint64_t{100'000}}) {
    request_.jail.rlimits = {{RLIMIT_SIGPENDING, wanted}};
    connect();
    Child child = start();
    EXPECT_EQ(order('q'), std::min(wanted, kMaxPendingSignals));
  }
}

TEST_F(SpawnTest, exitCodeIsReported) {
  Child child = start();
  const Child::Exit exit = exitAfter(child, 'e');
  EXPECT_EQ(exit.kind, Child::Exit::Kind::kCode);
  EXPECT_EQ(exit.value, 7);
}

TEST_F(SpawnTest, forbiddenCalls_endTheProcess) {
  for (const char what : {'o', 's', 'f'}) {
    connect();
    Child child = start();
    const Child::Exit exit = exitAfter(child, what);
    EXPECT_EQ(exit.kind, Child::Exit::Kind::kSignal) << what;
    EXPECT_EQ(exit.value, SIGSYS) << what;
  }
}

TEST_F(SpawnTest, rings_areThereFromTheFirstInstruction_andNoOthersCanBeMade) {
  if (!rings::make().descriptor) {
    GTEST_SKIP() << "this system offers no io_uring";
  }
  request_.rings = 2;
  {
    Child child = start();
    EXPECT_EQ(order('n'), 6u);
    EXPECT_EQ(order('r'), rings::kArgumentBytes);
    EXPECT_EQ(order('R'), 0u);
  }
  for (const char what : {'x', 'm', 'b'}) {
    connect();
    Child child = start();
    const Child::Exit exit = exitAfter(child, what);
    EXPECT_EQ(exit.kind, Child::Exit::Kind::kSignal) << what;
    EXPECT_EQ(exit.value, SIGSYS) << what;
  }
}

TEST_F(SpawnTest, epolls_areThereFromTheFirstInstruction_andNoOthersCanBeMade) {
  request_.epolls = 3;
  {
    Child child = start();
    EXPECT_EQ(order('n'), 7u);
    EXPECT_EQ(order('r'), std::string("epolls=4+3").size());
    for (int epoll = 4; epoll < 7; ++epoll) {
      char target[32] = {};
      const std::string link = "/proc/" + std::to_string(child.pid()) + "/fd/" + std::to_string(epoll);
      EXPECT_GT(::readlink(link.c_str(), target, sizeof(target) - 1), 0) << epoll;
      EXPECT_STREQ(target, "anon_inode:[eventpoll]");
    }
  }
  for (const char what : {'p', 'd'}) {
    connect();
    Child child = start();
    EXPECT_EQ(exitAfter(child, what).value, SIGSYS) << what;
  }
  request_.jail.makesEpolls = true;
  connect();
  Child child = start();
  EXPECT_EQ(order('p'), 7u);
  EXPECT_EQ(order('d'), 8u);
}

TEST_F(SpawnTest, descriptors_areAsFewAsAsked_butHaveRoomForWhatItStartsWith) {
  request_.jail.maxDescriptors = 64;
  request_.epolls = 50;
  {
    Child child = start();
    EXPECT_EQ(order('n'), 54u);
    rlimit limit = {};
    EXPECT_EQ(::prlimit(child.pid(), RLIMIT_NOFILE, nullptr, &limit), 0);
    EXPECT_EQ(limit.rlim_max, 64u);
    EXPECT_EQ(exitAfter(child, 'o').value, SIGSYS);
  }
  request_.epolls = 60;
  EXPECT_EQ(refusal(), "a worker starts with more descriptors than it may have");
  request_.epolls = 129;
  EXPECT_EQ(refusal(), "more rings or epoll instances than a worker can have");
}

TEST_F(SpawnTest, withoutRings_noCallOnThemIsAllowed) {
  Child child = start();
  EXPECT_EQ(order('r'), std::string("jail-inmate").size());
  EXPECT_EQ(exitAfter(child, 'R').value, SIGSYS);
}

TEST_F(SpawnTest, descriptorInTheWayOfARing_isRefused) {
  request_.rings = 1;
  request_.descriptors.push_back({null_.get(), rings::kFirstDescriptor});
  EXPECT_EQ(refusal(), "a descriptor of the worker is out of range");
}

TEST_F(SpawnTest, netNamespaceCanBeGivenUp_andThenShows) {
  request_.jail.without = {"net-namespace"};
  Child child = start();
  order('u');
  confinement::Expectation expected;
  expected.pid = child.pid();
  expected.hostUid = request_.jail.uid;
  expected.hostGid = request_.jail.gid;
  expected.newNamespaces = {"net"};
  const auto violations = confinement::verify(expected).violations;
  ASSERT_EQ(violations.size(), 1u);
  EXPECT_EQ(violations[0].rfind("the net namespace is that of the host (net:[", 0), 0u) << violations[0];
}

TEST_F(SpawnTest, executableThatIsNone_isAnErrorThatSaysSo) {
  const Fd text(::open("/etc/passwd", O_RDONLY | O_CLOEXEC));
  request_.executable = text.get();
  try {
    start();
    FAIL() << "started";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kConfinement);
    EXPECT_NE(error.message().find("executing the worker"), std::string::npos) << error.message();
  }
}

TEST_F(SpawnTest, unknownPolicy_isRefused) {
  request_.jail.seccompPolicy = "none";
  EXPECT_EQ(refusal(), "there is no seccomp policy 'none'");
}

TEST_F(SpawnTest, uidZero_isRefused) {
  request_.jail.uid = 0;
  EXPECT_EQ(refusal(), "a worker must not run under uid 0");
}

TEST_F(SpawnTest, endOfTheSpawningThread_endsTheWorker) {
  std::optional<Child> child;
  std::thread spawner([&]() { child = start(); });
  spawner.join();
  const Child::Exit exit = waitFor(*child);
  EXPECT_EQ(exit.kind, Child::Exit::Kind::kSignal);
  EXPECT_EQ(exit.value, SIGKILL);
}

TEST_F(SpawnTest, destroyedChild_isGone) {
  pid_t pid = 0;
  {
    Child child = start();
    pid = child.pid();
  }
  EXPECT_EQ(::kill(pid, 0), -1);
  EXPECT_EQ(errno, ESRCH);
}

TEST_F(SpawnTest, ignoredSigchld_leavesTheCauseUnknown) {
  struct sigaction before;
  struct sigaction ignore = {};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGCHLD, &ignore, &before);
  {
    Child child = start();
    const Child::Exit exit = exitAfter(child, 'e');
    EXPECT_EQ(exit.kind, Child::Exit::Kind::kUnknown);
  }
  ::sigaction(SIGCHLD, &before, nullptr);
}

TEST(CgroupTest, foldersGoWithIt) {
  std::vector<std::string> folders;
  {
    const Cgroup group = Cgroup::make("test-" + std::to_string(::getpid()), 64 << 20, 8);
    folders = group.folders();
    if (folders.empty()) {
      EXPECT_NE(group.why(), "");
      GTEST_SKIP() << "no control group can be made here: " << group.why();
    }
    for (const std::string& folder : folders) {
      EXPECT_EQ(::access(folder.c_str(), F_OK), 0) << folder;
    }
  }
  for (const std::string& folder : folders) {
    EXPECT_NE(::access(folder.c_str(), F_OK), 0) << folder;
  }
}

}  // namespace
}  // namespace vmmhost::spawn
