// A child that is followed from its first step on, here by a tracer of the same program.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include <cerrno>
#include <future>
#include <optional>
#include <set>
#include <thread>

#include "ipc/jail/spawn/spawn.h"
#include "tests/support/built.h"
#include "tests/support/children.h"

namespace vmmhost::spawn {
namespace {

class TracedChild : public testing::Test {
 protected:
  TracedChild()
      : executable_(::open(tests::built("bin/jail-inmate").c_str(), O_RDONLY | O_CLOEXEC)),
        null_(::open("/dev/null", O_RDWR | O_CLOEXEC)) {
    request_.executable = executable_.get();
    request_.argv = {"jail-inmate"};
    // It reads no orders, and exits with 0.
    request_.descriptors = {{null_.get(), 0}, {null_.get(), 1}, {2, 2}, {null_.get(), 3}};
    request_.jail.uid = ::geteuid() == 0 ? 0x76489997 : ::geteuid();
    request_.jail.gid = ::geteuid() == 0 ? 0x76489997 : ::getegid();
  }

  Fd executable_, null_;
  Request request_;
};

TEST_F(TracedChild, stopOfTheTracer_isNotTakenByWhoAsksForTheEnd) {
  std::promise<int> attached;
  std::promise<int> stopped;
  std::promise<void> mayGoOn;
  bool wasThere = false;
  std::thread tracer;
  request_.beforeStart = [&](pid_t process) {
    tracer = std::thread([&, process] {
      const long seized = ::ptrace(PTRACE_SEIZE, process, 0, PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL);
      attached.set_value(seized == 0 ? 0 : errno);
      siginfo_t info{};
      ::waitid(P_PID, static_cast<id_t>(process), &info, WSTOPPED | WNOWAIT | __WALL | __WNOTHREAD);
      stopped.set_value(info.si_status >> 8);
      mayGoOn.get_future().wait();
      info = {};
      ::waitid(P_PID, static_cast<id_t>(process), &info, WSTOPPED | WNOHANG | __WALL | __WNOTHREAD);
      wasThere = info.si_pid == process;
      ::ptrace(PTRACE_CONT, process, 0, 0);
    });
    ASSERT_EQ(attached.get_future().get(), 0);
  };
  Child child = begin(request_);
  EXPECT_EQ(stopped.get_future().get(), PTRACE_EVENT_EXIT);
  EXPECT_FALSE(child.reap()) << "it has not ended";
  mayGoOn.set_value();
  tracer.join();
  EXPECT_TRUE(wasThere) << "the stop";
  pollfd ended = {child.pidfd(), POLLIN, 0};
  ASSERT_EQ(::poll(&ended, 1, 60'000), 1);
  const auto exit = child.reap();
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->kind, Child::Exit::Kind::kCode);
  EXPECT_EQ(exit->value, 0);
}

TEST_F(TracedChild, childThatCannotBeFollowed_isGone) {
  const std::set<pid_t> before = tests::children();
  pid_t seen = -1;
  request_.beforeStart = [&](pid_t process) {
    seen = process;
    EXPECT_EQ(tests::children().count(process), 1u);
    throw Error(ErrorCode::kUnavailable, "it cannot be followed");
  };
  try {
    begin(request_);
    ADD_FAILURE() << "begun";
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "it cannot be followed");
  }
  EXPECT_GT(seen, 0);
  EXPECT_EQ(tests::children(), before);
}

}  // namespace
}  // namespace vmmhost::spawn
