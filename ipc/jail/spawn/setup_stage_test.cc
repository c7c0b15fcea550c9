// Capabilities over a network of its own, which a jailed process has for a moment and gives up before it reads
// anything.
#include <linux/capability.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <string>

#include "ipc/jail/spawn/test_jail.h"

namespace vmmhost::spawn {
namespace {

struct LinkMessage {
  nlmsghdr header;
  ifinfomsg link;
};

class SetupStageTest : public JailTest {
 protected:
  void prepareSetup(std::set<int> capabilities = {CAP_NET_ADMIN}) {
    request_.jail.setupCapabilities = std::move(capabilities);
  }
  std::int64_t openRoutes() { return resultOf(SYS_socket, {AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE}); }
  // 0, or an errno value below it.
  int setLoopback(int routes, bool isUp) {
    LinkMessage message = {};
    message.header.nlmsg_len = sizeof(message);
    message.header.nlmsg_type = RTM_NEWLINK;
    message.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    message.link.ifi_index = 1;
    message.link.ifi_flags = isUp ? IFF_UP : 0;
    message.link.ifi_change = IFF_UP;
    const std::string bytes(reinterpret_cast<const char*>(&message), sizeof(message));
    EXPECT_EQ(resultOf(SYS_write, {routes, Argument::bytesOf(bytes), sizeof(message)}),
              static_cast<std::int64_t>(sizeof(message)));
    const prober::Answer answer = call(SYS_read, {routes, Argument::room(256), 256});
    struct {
      nlmsghdr header;
      nlmsgerr error;
    } told = {};
    EXPECT_GE(answer.result, static_cast<std::int64_t>(sizeof(told)));
    std::memcpy(&told, answer.data, sizeof(told));
    EXPECT_EQ(told.header.nlmsg_type, NLMSG_ERROR);
    return told.error.error;
  }
  std::string endSetup() {
    const prober::Answer answer = order(prober::Kind::kEndSetup);
    return answer.result == 0 ? "" : reinterpret_cast<const char*>(answer.data);
  }
  bool isForbiddenAfterEnd(long number, std::vector<Argument> arguments) {
    Child child = start();
    EXPECT_EQ(endSetup(), "");
    return call(number, std::move(arguments)).result == kDied && waitFor(child).value == SIGSYS;
  }
  static std::string capabilityBytes(std::uint32_t capabilities) {
    const struct {
      __user_cap_header_struct header;
      __user_cap_data_struct sets[2];
    } all = {{_LINUX_CAPABILITY_VERSION_3, 0}, {{capabilities, capabilities, capabilities}, {}}};
    return {reinterpret_cast<const char*>(&all), sizeof(all)};
  }
  // capset(); the sets lie behind the header.
  static std::vector<Argument> capsetOf(std::uint32_t capabilities) {
    const std::string bytes = capabilityBytes(capabilities);
    return {Argument::bytesOf(bytes.substr(0, sizeof(__user_cap_header_struct))),
            Argument::bytesOf(bytes.substr(sizeof(__user_cap_header_struct)))};
  }
};

TEST_F(SetupStageTest, networkOfItsOwn_isSetUp_andThenNoMore) {
  asBoth([&] {
    prepareSetup();
    const Child child = start();
    const auto routes = static_cast<int>(openRoutes());
    ASSERT_GE(routes, 0);
    EXPECT_EQ(setLoopback(routes, true), 0);
    EXPECT_EQ(endSetup(), "");
    EXPECT_EQ(setLoopback(routes, false), -EPERM);  // with the socket of the set-up
    EXPECT_EQ(resultOf(SYS_close, {routes}), 0);
    EXPECT_EQ(violationsOf(child), "");
  });
}

TEST_F(SetupStageTest, capabilitiesThatAreNotGivenUp_areSeenFromOutside) {
  asBoth([&] {
    prepareSetup();
    const Child child = start();
    EXPECT_EQ(resultOf(SYS_getuid), static_cast<std::int64_t>(kInsideUid));
    const std::string thread = "thread " + std::to_string(child.pid()) + ": ";
    EXPECT_EQ(violationsOf(child), thread + "1 seccomp filters, expected at least 2\n" + thread +
                                       "CapInh is 0000000000001000, expected none\n" + thread +
                                       "CapPrm is 0000000000001000, expected none\n" + thread +
                                       "CapEff is 0000000000001000, expected none\n" + thread +
                                       "CapAmb is 0000000000001000, expected none\n");
  });
}

TEST_F(SetupStageTest, eachCapability_isThatOneAlone) {
  asBoth([&] {
    for (const int capability : {CAP_NET_ADMIN, CAP_NET_RAW, CAP_NET_BIND_SERVICE}) {
      prepareSetup({capability});
      const Child child = start();
      const prober::Answer answer =
          call(SYS_capget, {Argument::bytesOf(capabilityBytes(0).substr(0, sizeof(__user_cap_header_struct))),
                            Argument::room(2 * sizeof(__user_cap_data_struct))});
      ASSERT_EQ(answer.result, 0);
      __user_cap_data_struct sets[2];
      std::memcpy(sets, answer.data + sizeof(__user_cap_header_struct), sizeof(sets));
      for (const std::uint32_t set : {sets[0].effective, sets[0].permitted, sets[0].inheritable}) {
        EXPECT_EQ(set, 1u << capability);
      }
      EXPECT_EQ(sets[1].effective | sets[1].permitted | sets[1].inheritable, 0u);
      EXPECT_EQ(endSetup(), "");
      EXPECT_EQ(violationsOf(child), "");
    }
  });
}

TEST_F(SetupStageTest, setUp_takesNoMoreThanItNeeds) {
  asBoth([&] {
    prepareSetup();
    EXPECT_TRUE(isForbidden(SYS_socket, {AF_INET, SOCK_STREAM, 0}));
    EXPECT_TRUE(isForbidden(SYS_socket, {AF_PACKET, SOCK_RAW, 0}));
    EXPECT_TRUE(isForbidden(SYS_socket, {AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER}));
    EXPECT_TRUE(isForbidden(SYS_bind, {3, 0, 0}));
    EXPECT_TRUE(isForbidden(SYS_unshare, {0x40000000}));
    EXPECT_TRUE(isForbidden(SYS_prctl, {PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0}));
    EXPECT_TRUE(isForbidden(SYS_prctl, {PR_SET_SECUREBITS, 0, 0, 0, 0}));
    EXPECT_TRUE(isForbidden(SYS_prctl, {PR_SET_KEEPCAPS, 1, 0, 0, 0}));
    prepareSetup({CAP_NET_RAW});
    EXPECT_TRUE(isForbidden(SYS_socket, {AF_NETLINK, SOCK_RAW, NETLINK_ROUTE}));
    prepareSetup({});
    EXPECT_TRUE(isForbidden(SYS_capset, capsetOf(0)));
  });
}

TEST_F(SetupStageTest, whatWasGivenUp_isNotHadAgain) {
  asBoth([&] {
    prepareSetup();
    EXPECT_TRUE(isForbiddenAfterEnd(SYS_socket, {AF_NETLINK, SOCK_RAW, NETLINK_ROUTE}));
    EXPECT_TRUE(isForbiddenAfterEnd(SYS_capset, capsetOf(1u << CAP_NET_ADMIN)));
    EXPECT_TRUE(isForbiddenAfterEnd(SYS_prctl, {PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0}));
  });
}

TEST_F(SetupStageTest, withoutFilters_itIsNotHadAgainEither) {
  if (!isRoot()) {
    GTEST_SKIP() << "only root can lift filters";
  }
  prepareSetup();
  const Child child = start();
  EXPECT_EQ(endSetup(), "");
  const WithoutFilters lifted(child.pid());
  EXPECT_EQ(resultOf(SYS_capset, capsetOf(1u << CAP_NET_ADMIN)), -EPERM);
  EXPECT_EQ(resultOf(SYS_capset, capsetOf(1u << CAP_SETPCAP)), -EPERM);
  EXPECT_EQ(resultOf(SYS_prctl, {PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0}), -EPERM);
  EXPECT_EQ(resultOf(SYS_prctl, {PR_SET_SECUREBITS, 0, 0, 0, 0}), -EPERM);
  EXPECT_EQ(resultOf(SYS_prctl, {PR_SET_KEEPCAPS, 1, 0, 0, 0}), -EPERM);
  const auto routes = static_cast<int>(openRoutes());
  EXPECT_GE(routes, 0);
  EXPECT_EQ(setLoopback(routes, true), -EPERM);
  EXPECT_EQ(resultOf(SYS_sethostname, {"x", 1}), -EPERM);
}

TEST_F(SetupStageTest, otherThreads_keepItFromEnding_andAreSeen) {
  asBoth([&] {
    prepareSetup();
    const Child child = start();
    EXPECT_EQ(order(prober::Kind::kStartThread).result, 0);
    EXPECT_EQ(endSetup(),
              "the set-up cannot end: the process has or had other threads, each with capabilities of its own");
    EXPECT_NE(violationsOf(child).find("CapEff is 0000000000001000"), std::string::npos);
  });
}

TEST_F(SetupStageTest, whatIsNoSetUpOfItsOwn_isRefused) {
  const auto expectRefusal = [&](const char* what) {
    const std::string said = refusal();
    EXPECT_NE(said.find(what), std::string::npos) << said;
  };
  for (const int capability :
       {CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_SYS_MODULE, CAP_SETPCAP, CAP_SETUID, CAP_MKNOD, -1, 64}) {
    prepareSetup({CAP_NET_ADMIN, capability});
    expectRefusal("which no set-up is given");
  }
  prepareSetup();
  request_.jail.network.how = Namespace::How::kKept;
  expectRefusal("asks for capabilities over a network that is not its own");
  request_.jail.network = {};
  for (const char* part : {"user-namespace", "net-namespace"}) {
    request_.jail.without = {part};
    expectRefusal("the prober cannot do without its ");
  }
}

}  // namespace
}  // namespace vmmhost::spawn
