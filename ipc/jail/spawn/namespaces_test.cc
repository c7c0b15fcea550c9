// Networks that a jailed process joins or shares with the host on purpose, all other namespaces being its own.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "ipc/jail/spawn/test_jail.h"

namespace vmmhost::spawn {
namespace {

class NamespacesTest : public JailTest {
 protected:
  // Has the prober join a new network, as the caller can.
  Network joinNew() {
    Network made = makeNetwork(!isRoot());
    join(made);
    return made;
  }
  void join(const Network& made) {
    request_.jail.network = {Namespace::How::kJoined, made.network.get()};
    request_.jail.user = {};
    if (made.user) {
      request_.jail.user = {Namespace::How::kJoined, made.user.get()};
    }
  }
  // The prober sees a /proc then, and can read links.
  void showProc() {
    request_.jail.proc = true;
    request_.jail.root = Jail::Root::kBinds;
    request_.jail.seccompPolicy = "worker-system";
  }
  static std::string ownLink(const char* name) {
    return std::filesystem::read_symlink(std::string("/proc/self/ns/") + name).string();
  }
};

TEST_F(NamespacesTest, joinedNetwork_isThatOne_andAllElseIsItsOwn) {
  asBoth([&] {
    const Network made = joinNew();
    showProc();
    const Child child = start();
    EXPECT_EQ(violationsOf(child), "");
    const std::string name = confinement::namespaceOf(made.network.get());
    EXPECT_NE(name, ownLink("net"));
    const prober::Answer seen = call(SYS_readlinkat, {AT_FDCWD, "/proc/self/ns/net", Argument::room(100), 100});
    ASSERT_EQ(seen.result, static_cast<std::int64_t>(name.size()));
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(seen.data) + 24, name.size()), name);
    EXPECT_EQ(resultOf(SYS_getuid), static_cast<std::int64_t>(kInsideUid));
    EXPECT_EQ(resultOf(SYS_getgid), static_cast<std::int64_t>(kInsideGid));
    EXPECT_EQ(resultOf(SYS_getpid), 1);
  });
}

TEST_F(NamespacesTest, joinedNetwork_canBeHadWithoutAUserNamespace_byRoot) {
  if (!isRoot()) {
    GTEST_SKIP() << "an ordinary user has no other way to the other namespaces";
  }
  const Network made = joinNew();
  request_.jail.without = {"user-namespace"};
  const Child child = start();
  EXPECT_EQ(violationsOf(child), "");
}

TEST_F(NamespacesTest, processThatJoins_isAChildLikeOthers_andTheOnlyOne) {
  asBoth([&] {
    const Network made = joinNew();
    {
      Child child = start();
      std::ifstream status("/proc/" + std::to_string(child.pid()) + "/status");
      std::optional<pid_t> parent;
      for (std::string line; std::getline(status, line);) {
        if (line.rfind("PPid:", 0) == 0) {
          parent = std::stoi(line.substr(5));
        }
      }
      EXPECT_EQ(parent, ::getpid());
      socket_.reset();
      const Child::Exit exit = waitFor(child);
      EXPECT_EQ(exit.kind, Child::Exit::Kind::kCode);
      EXPECT_EQ(exit.value, 0);
    }
    { const Child killed = start(); }
    EXPECT_EQ(::waitpid(-1, nullptr, __WALL | WNOHANG), -1) << "a child is left";
    EXPECT_EQ(errno, ECHILD);
  });
}

TEST_F(NamespacesTest, processesOfOneNetwork_areApartOtherwise) {
  asBoth([&] {
    const Network made = joinNew();
    const Child first = start();
    const Fd hers = std::move(socket_);
    const Child second = start();
    EXPECT_EQ(violationsOf(first) + violationsOf(second), "");
    const auto linkOf = [](const Child& child, const char* name) {
      return std::filesystem::read_symlink("/proc/" + std::to_string(child.pid()) + "/ns/" + name).string();
    };
    EXPECT_EQ(linkOf(first, "net"), linkOf(second, "net"));
    for (const char* name : {"user", "mnt", "pid", "ipc", "uts"}) {
      EXPECT_NE(linkOf(first, name), linkOf(second, name));
    }
  });
}

TEST_F(NamespacesTest, otherNetworkThanTheJoinedOne_isSeenFromOutside) {
  asBoth([&] {
    const Network made = joinNew();
    const Network other = makeNetwork(!isRoot());
    const Child child = start();
    confinement::Expectation expected = child.expectation();
    expected.joinedNamespaces[0].second = confinement::namespaceOf(other.network.get());
    EXPECT_EQ(violationsOf(expected), "the net namespace is " + confinement::namespaceOf(made.network.get()) +
                                          ", expected the one to be joined (" +
                                          confinement::namespaceOf(other.network.get()) + ")\n");
    expected = child.expectation();
    EXPECT_EQ(expected.userNamespaceParent.empty(), isRoot());
    expected.userNamespaceParent = other.user ? confinement::namespaceOf(other.user.get()) : "user:[1]";
    EXPECT_NE(violationsOf(expected).find("its user namespace lies below "), std::string::npos);
  });
}

TEST_F(NamespacesTest, keptNetwork_isTheHosts_onPurpose) {
  asBoth([&] {
    request_.jail.network.how = Namespace::How::kKept;
    const Child child = start();
    EXPECT_EQ(violationsOf(child), "");
    confinement::Expectation expected = child.expectation();
    expected.keptNamespaces = {"uts"};
    EXPECT_NE(violationsOf(expected).find(", expected that of the host"), std::string::npos);
    expected = child.expectation();
    expected.newNamespaces.emplace_back("net");
    EXPECT_EQ(violationsOf(expected), "the net namespace is that of the host (" + ownLink("net") + ")\n");
  });
}

TEST_F(NamespacesTest, joinedNetwork_isNotLeft) {
  asBoth([&] {
    const Network made = joinNew();
    const Fd hosts(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    request_.descriptors = {{hosts.get(), 5}};
    EXPECT_TRUE(isForbidden(SYS_setns, {5, CLONE_NEWNET}));
    EXPECT_TRUE(isForbidden(SYS_unshare, {CLONE_NEWNET}));
    EXPECT_TRUE(isForbidden(SYS_unshare, {CLONE_NEWUSER}));
    EXPECT_TRUE(isForbidden(SYS_socket, {AF_UNIX, SOCK_STREAM, 0}));
  });
}

TEST_F(NamespacesTest, withoutFilters_joinedNetworkIsNotLeftEither) {
  if (!isRoot()) {
    GTEST_SKIP() << "only root can lift filters";
  }
  const Network made = joinNew();
  const Fd hosts(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  const Fd user(::open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC));
  request_.descriptors = {{hosts.get(), 5}, {user.get(), 6}};
  const Child child = start();
  const WithoutFilters lifted(child.pid());
  EXPECT_EQ(resultOf(SYS_setns, {5, CLONE_NEWNET}), -EPERM);
  EXPECT_EQ(resultOf(SYS_setns, {6, CLONE_NEWUSER}), -EPERM);
  EXPECT_EQ(resultOf(SYS_unshare, {CLONE_NEWNET}), -EPERM);
  EXPECT_EQ(resultOf(SYS_unshare, {CLONE_NEWUSER}), -ENOSPC);  // none below its own
}

TEST_F(NamespacesTest, endOfTheSpawningThread_endsTheProcessThatJoined) {
  asBoth([&] {
    const Network made = joinNew();
    std::optional<Child> child;
    std::thread spawner([&]() { child = start(); });
    spawner.join();
    const Child::Exit exit = waitFor(*child);
    EXPECT_EQ(exit.kind, Child::Exit::Kind::kSignal);
    EXPECT_EQ(exit.value, SIGKILL);
  });
}

TEST_F(NamespacesTest, ignoredSigchld_isNoObstacle) {
  struct sigaction before;
  struct sigaction ignore = {};
  ignore.sa_handler = SIG_IGN;
  const Network made = joinNew();
  ::sigaction(SIGCHLD, &ignore, &before);
  {
    Child child = start();
    EXPECT_EQ(violationsOf(child), "");
    socket_.reset();
    EXPECT_EQ(waitFor(child).kind, Child::Exit::Kind::kUnknown);
  }
  ::sigaction(SIGCHLD, &before, nullptr);
}

TEST_F(NamespacesTest, jailThatCannotBeMade_isToldOfOneThatJoins_too) {
  asBoth([&] {
    const Network made = joinNew();
    request_.executable = null_.get();
    EXPECT_NE(refusal().find("the prober's jail could not be made: executing the prober"), std::string::npos);
    EXPECT_EQ(::waitpid(-1, nullptr, __WALL | WNOHANG), -1);
  });
}

TEST_F(NamespacesTest, userNamespaceThatIsNotTheCallers_isNamed) {
  if (!isRoot()) {
    GTEST_SKIP() << "only root makes a network that others own";
  }
  const Network roots = makeNetwork(false);
  const Network withUser = makeNetwork(true);
  asBoth([&] {
    if (isRoot()) {
      return;
    }
    const Fd own(::open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC));
    request_.jail.network = {Namespace::How::kJoined, roots.network.get()};
    request_.jail.user = {Namespace::How::kJoined, own.get()};
    EXPECT_NE(refusal().find("entering the user namespace that owns the network of the prober"), std::string::npos);
    join(withUser);
    EXPECT_NE(refusal().find("entering the user namespace that owns the network of the prober"), std::string::npos);
  });
}

TEST_F(NamespacesTest, whatMakesNoSense_isRefused) {
  asBoth([&] {
    const auto expectRefusal = [&](const char* what) {
      const std::string said = refusal();
      EXPECT_NE(said.find(what), std::string::npos) << said;
    };
    const Fd ownNetwork(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    const Fd ownUts(::open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC));
    const Network made = joinNew();
    const Namespace joined = request_.jail.network;
    request_.jail.without = {"net-namespace"};
    expectRefusal("the prober cannot do without its net-namespace");
    request_.jail.without.clear();
    for (const int descriptor : {-1, null_.get(), ownUts.get()}) {
      request_.jail.network.descriptor = descriptor;
      expectRefusal("joins what is no network namespace");
    }
    request_.jail.network.descriptor = ownNetwork.get();
    expectRefusal("joins the network namespace of the host");
    request_.jail.network = joined;
    request_.jail.setupCapabilities = {12};
    expectRefusal("asks for capabilities over a network that is not its own");
    request_.jail.setupCapabilities.clear();
    const Network other = makeNetwork(true);
    request_.jail.user = {Namespace::How::kJoined, other.user.get()};
    expectRefusal(isRoot() ? "joins a user namespace, which root does without"
                           : "joins a user namespace that does not own the network namespace");
    request_.jail.network = {};
    expectRefusal("joins a user namespace without a network of it");
    request_.jail.user = {Namespace::How::kKept, -1};
    expectRefusal("keeps the user namespace");
    if (!isRoot()) {
      request_.jail.user = {};
      request_.jail.network = joined;
      expectRefusal("as an ordinary user, but no user namespace that owns it");
    }
  });
}

}  // namespace
}  // namespace vmmhost::spawn
