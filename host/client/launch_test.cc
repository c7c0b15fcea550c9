#include "host/client/launch.h"

#include <capnp/message.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>

#include "tests/support/built.h"
#include "vmmhost/error.h"

namespace vmmhost::client {
namespace {

LaunchedSupervisor launch(const std::string& program, const char* vmName = "v") {
  capnp::MallocMessageBuilder message;
  auto request = message.initRoot<schema::LaunchRequest>();
  request.initConfig().setName(vmName);
  request.setBackend("kvm");
  return launchSupervisor(program, request.asReader());
}

// All that it says until it closes the connection.
std::string readAll(const Fd& socket) {
  std::string text;
  char buffer[4096];
  pollfd watched{socket.get(), POLLIN, 0};
  while (::poll(&watched, 1, 10000) == 1) {
    const ssize_t count = ::read(socket.get(), buffer, sizeof buffer);
    if (count <= 0) {
      break;
    }
    text.append(buffer, static_cast<std::size_t>(count));
  }
  return text;
}

bool contains(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

TEST(Launch, supervisor_getsWhatItNeedsAndNothingElse) {
  // What must not be passed on: descriptors without close-on-exec, an ignored and a blocked signal, variables.
  const Fd leak(::open("/dev/null", O_RDONLY));
  ASSERT_TRUE(leak);
  ::setenv("VMMHOST_TEST_VARIABLE", "1", 1);
  ::setenv("SECRET_OF_THE_SHELL", "1", 1);
  struct sigaction ignore {};
  struct sigaction before {};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, &before);
  sigset_t blocked;
  sigset_t beforeMask;
  ::sigemptyset(&blocked);
  ::sigaddset(&blocked, SIGTERM);
  ::sigprocmask(SIG_BLOCK, &blocked, &beforeMask);

  LaunchedSupervisor supervisor = launch(tests::built("bin/host_client_launch_probe"));
  const std::string said = readAll(supervisor.control);

  ::sigprocmask(SIG_SETMASK, &beforeMask, nullptr);
  ::sigaction(SIGPIPE, &before, nullptr);
  ::unsetenv("VMMHOST_TEST_VARIABLE");
  ::unsetenv("SECRET_OF_THE_SHELL");
  EXPECT_TRUE(contains(said, "fds 0,1,2,3,4")) << said;
  EXPECT_TRUE(contains(said, "null yes")) << said;
  EXPECT_TRUE(contains(said, "leader yes")) << said;
  EXPECT_TRUE(contains(said, "signals default")) << said;
  EXPECT_TRUE(contains(said, "sealed yes")) << said;
  EXPECT_TRUE(contains(said, "backend kvm")) << said;
  EXPECT_TRUE(contains(said, "name v")) << said;
  EXPECT_TRUE(contains(said, "env VMMHOST_TEST_VARIABLE=1")) << said;
  EXPECT_EQ(said.find("SECRET"), std::string::npos) << said;
  EXPECT_EQ(reapSupervisor(supervisor, 10000), "exited with code 7");
  EXPECT_EQ(reapSupervisor(supervisor, 0), "");
}

TEST(Launch, lowDescriptorNumbers_areNotMixedUp) {
  // The request and the socket get the numbers that dup2 is about to overwrite.
  const Fd in(::dup(0));
  const Fd out(::dup(1));
  ::close(0);
  LaunchedSupervisor supervisor = launch(tests::built("bin/host_client_launch_probe"));
  const std::string said = readAll(supervisor.control);
  supervisor.control.reset();
  ::dup2(in.get(), 0);
  EXPECT_TRUE(contains(said, "fds 0,1,2,3,4")) << said;
  EXPECT_TRUE(contains(said, "null yes")) << said;
  EXPECT_TRUE(contains(said, "name v")) << said;
  EXPECT_EQ(reapSupervisor(supervisor, 10000), "exited with code 7");
}

TEST(Launch, killedSupervisor_isToldByItsSignal) {
  LaunchedSupervisor supervisor = launch(tests::built("bin/host_client_launch_probe"), "kill");
  EXPECT_EQ(reapSupervisor(supervisor, 10000), "was ended by signal 9 (Killed)");
}

TEST(Launch, missingProgram_isNamed) {
  try {
    launch("/nonexistent/vmmhost-supervisor");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInternal);
    EXPECT_EQ(error.message(), "executing /nonexistent/vmmhost-supervisor: No such file or directory");
    EXPECT_FALSE(error.hint().empty());
  }
}

TEST(Launch, failure_leavesNoDescriptorBehind) {
  const Fd before(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_THROW(launch("/nonexistent/vmmhost-supervisor"), Error);
  const Fd after(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(after.get(), before.get() + 1);
}

TEST(Launch, environment_isAnAllowList) {
  const char* const variables[] = {
      "PATH=/bin",           "HOME=/h", "XDG_RUNTIME_DIR=/r", "VMMHOST_DEBUG=1", "ASAN_OPTIONS=a", "LD_LIBRARY_PATH=/l",
      "LD_PRELOAD=/evil.so", "PATHX=1", "SSH_AUTH_SOCK=/s",   "HOMELESS=1",      nullptr};
  const std::vector<std::string> expected = {"PATH=/bin",       "HOME=/h",        "XDG_RUNTIME_DIR=/r",
                                             "VMMHOST_DEBUG=1", "ASAN_OPTIONS=a", "LD_LIBRARY_PATH=/l"};
  EXPECT_EQ(supervisorEnvironment(variables), expected);
}

}  // namespace
}  // namespace vmmhost::client
