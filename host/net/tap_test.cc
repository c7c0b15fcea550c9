#include "host/net/tap.h"

#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "host/net/test_tap.h"
#include "vmmhost/error.h"

namespace vmmhost::net {
namespace {

constexpr uid_t kSomeUser = 4711;
constexpr int kUntraceable = 77;
constexpr char kMayNotTrace[] = "this process may not trace another";

class TapTest : public NetworkTest {
 protected:
  static std::string refusal(const std::string& name) {
    try {
      openTap("nics[0].attachment.tap", name, 4);
    } catch (const Error& error) {
      return error.message() + (error.retryable() ? " (retryable)" : "");
    }
    return "opened";
  }
  static std::string readAll(const Fd& reading) {
    std::string text(4096, '\0');
    const ssize_t got = ::read(reading.get(), text.data(), text.size());
    text.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    return text;
  }
  // What a process is told that has found a device free, and in whose way `meanwhile` comes before it attaches itself.
  template <typename Meanwhile>
  static std::string refusalWhen(const std::string& name, Meanwhile meanwhile) {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const Fd reading(ends[0]);
    Fd writing(ends[1]);
    const pid_t child = ::fork();
    if (child == 0) {
      if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) {
        ::_exit(kUntraceable);
      }
      ::raise(SIGSTOP);
      const std::string text = refusal(name);
      ::_exit(::write(writing.get(), text.data(), text.size()) < 0);
    }
    writing.reset();
    int status = 0;
    ::waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == kUntraceable) {
      return kMayNotTrace;
    }
    ::ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    while (WIFSTOPPED(status) && !isAboutToAttach(child)) {
      ::ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);
      ::waitpid(child, &status, 0);
    }
    EXPECT_TRUE(WIFSTOPPED(status)) << "it never came to attaching";
    [[maybe_unused]] const auto kept = meanwhile();
    ::ptrace(PTRACE_DETACH, child, nullptr, nullptr);
    ::waitpid(child, &status, 0);
    return readAll(reading);
  }
  // Before its openat("/dev/net/tun").
  static bool isAboutToAttach(pid_t child) {
    __ptrace_syscall_info info = {};
    if (::ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof info, &info) <= 0 || info.op != PTRACE_SYSCALL_INFO_ENTRY ||
        info.entry.nr != SYS_openat) {
      return false;
    }
    const long begin = ::ptrace(PTRACE_PEEKDATA, child, info.entry.args[1], nullptr);
    return std::memcmp(&begin, "/dev/net", sizeof begin) == 0;
  }
  // What another user is told, in a process of its own.
  static std::string refusalAs(uid_t user, const std::string& name) {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const Fd reading(ends[0]);
    Fd writing(ends[1]);
    const pid_t child = ::fork();
    if (child == 0) {
      if (::setgroups(0, nullptr) != 0 || ::setgid(user) != 0 || ::setuid(user) != 0) {
        ::_exit(1);
      }
      const std::string text = refusal(name);
      ::_exit(::write(writing.get(), text.data(), text.size()) < 0);
    }
    writing.reset();
    const std::string text = readAll(reading);
    ::waitpid(child, nullptr, 0);
    return text;
  }
};

TEST_F(TapTest, deviceThatIsNotThere_isNotMade) {
  EXPECT_EQ(refusal("nothing0"), "nics[0].attachment.tap: nothing0: no such network device");
  EXPECT_EQ(::if_nametoindex("nothing0"), 0u);
}

TEST_F(TapTest, otherDevices_areRefused) {
  EXPECT_EQ(refusal("lo"), "nics[0].attachment.tap: lo is no TAP device");
  make("tun0", IFF_TUN | IFF_NO_PI);
  EXPECT_EQ(refusal("tun0"), "nics[0].attachment.tap: tun0 is no TAP device");
}

TEST_F(TapTest, deviceForOneQueue_isOpenedOnce) {
  make("tap0", IFF_TAP);
  {
    const OpenedTap tap = openTap("f", "tap0", 4);
    ASSERT_EQ(tap.queues.size(), 1u);
    EXPECT_EQ(tap.mtu, 1500);
    ifreq request{};
    ASSERT_EQ(::ioctl(tap.queues[0].get(), TUNGETIFF, &request), 0);
    EXPECT_EQ(request.ifr_flags & (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE),
              IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
    int headerBytes = 0;
    ASSERT_EQ(::ioctl(tap.queues[0].get(), TUNGETVNETHDRSZ, &headerBytes), 0);
    EXPECT_EQ(headerBytes, 12);
    EXPECT_NE(::fcntl(tap.queues[0].get(), F_GETFL) & O_NONBLOCK, 0);
    EXPECT_EQ(refusal("tap0"), "nics[0].attachment.tap: tap0 is in use (retryable)");
  }
  EXPECT_EQ(refusal("tap0"), "opened");
}

TEST_F(TapTest, deviceForSeveralQueues_isOneVmsAllTheSame) {
  make("tap1", IFF_TAP | IFF_MULTI_QUEUE);
  const OpenedTap tap = openTap("f", "tap1", 3);
  EXPECT_EQ(tap.queues.size(), 3u);
  EXPECT_EQ(refusal("tap1"), "nics[0].attachment.tap: tap1 is in use (retryable)");
}

TEST_F(TapTest, deviceThatAnotherAttachesAtTheSameMoment_isGivenUp) {
  make("tap1", IFF_TAP | IFF_MULTI_QUEUE);
  const std::string told = refusalWhen("tap1", [this] { return attach("tap1", flags()); });
  if (told == kMayNotTrace) {
    GTEST_SKIP() << told;
  }
  EXPECT_EQ(told, "nics[0].attachment.tap: tap1 is in use (retryable)");
  EXPECT_EQ(refusalWhen("tap1", [] { return 0; }), "opened");
}

TEST_F(TapTest, deviceOfAnother_isRefused) {
  make("tap0", IFF_TAP);
  make("tap1", IFF_TAP, kSomeUser);
  EXPECT_EQ(refusalAs(kSomeUser, "tap0"),
            "nics[0].attachment.tap: tap0 belongs to nobody, so that only root may use it, not to user 4711");
  EXPECT_EQ(refusalAs(kSomeUser + 1, "tap1"), "nics[0].attachment.tap: tap1 belongs to user 4711, not to user 4712");
  const std::string own = refusalAs(kSomeUser, "tap1");
  // /dev/net/tun itself may be root's.
  EXPECT_TRUE(own == "opened" || own.find("/dev/net/tun") != std::string::npos) << own;
}

}  // namespace
}  // namespace vmmhost::net
