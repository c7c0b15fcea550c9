#include "host/cli/test_command.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/support/built.h"

namespace vmmhost::cli {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

namespace {

constexpr auto kPatience = std::chrono::seconds(10);

// One read, if there is something within the patience; false at the end and when nothing comes.
bool readSome(int fd, std::string& into, Clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  pollfd watched{fd, POLLIN, 0};
  if (left <= 0 || ::poll(&watched, 1, static_cast<int>(left)) != 1) {
    return false;
  }
  char buffer[65536];
  const ssize_t count = ::read(fd, buffer, sizeof buffer);
  if (count <= 0) {
    return false;  // a terminal whose other side is gone says EIO
  }
  into.append(buffer, static_cast<std::size_t>(count));
  return true;
}

void makePipe(Fd& read, Fd& write) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  read.reset(ends[0]);
  write.reset(ends[1]);
}

}  // namespace

TestCommand::TestCommand() {
  std::string name = ::testing::TempDir() + "vmmhost-cli-XXXXXX";
  folder_ = ::mkdtemp(name.data());
  fs::create_directories(folder_ + "/bin");
  fs::create_directories(folder_ + "/" VMMHOST_LIBEXEC);
  for (const char* part : {"/run", "/state", "/home", "/plugins"}) {
    fs::create_directory(folder_ + part);
    fs::permissions(folder_ + part, fs::perms::owner_all);
  }
  // Links will not do: the command finds its installation through /proc/self/exe.
  fs::copy_file(tests::built("bin/vmmhost"), folder_ + "/bin/vmmhost");
  fs::copy_file(tests::built("bin/host_cli_fake_supervisor"), folder_ + "/" VMMHOST_LIBEXEC "/vmmhost-supervisor");
}

TestCommand::~TestCommand() {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

std::string TestCommand::writeFile(const std::string& name, const std::string& content) const {
  std::string path = folder_ + '/' + name;
  std::ofstream(path) << content;
  return path;
}

std::string TestCommand::report() const {
  std::ostringstream text;
  text << std::ifstream(folder_ + "/report").rdbuf();
  return text.str();
}

bool TestCommand::awaitReport(const std::string& text) const {
  const Fd changes(::inotify_init1(IN_CLOEXEC));
  ::inotify_add_watch(changes.get(), folder_.c_str(), IN_MODIFY | IN_CREATE);
  const auto deadline = Clock::now() + kPatience;
  std::string events;
  while (report().find(text) == std::string::npos) {
    if (!readSome(changes.get(), events, deadline)) {
      return false;
    }
  }
  return true;
}

TestCommand::Running TestCommand::start(const std::vector<std::string>& arguments, bool terminal) const {
  Running running;
  std::vector<std::string> words = {folder_ + "/bin/vmmhost"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<std::string> variables = {"PATH=/usr/bin:/bin",
                                        "HOME=" + folder_ + "/home",
                                        "XDG_CACHE_HOME=" + folder_ + "/home/.cache",
                                        "VMMHOST_RUNTIME_DIR=" + folder_ + "/run",
                                        "VMMHOST_STATE_DIR=" + folder_ + "/state",
                                        "VMMHOST_PLUGIN_PATH=" + folder_ + "/plugins",
                                        "VMMHOST_TEST_REPORT=" + folder_ + "/report"};
  if (const char* options = ::getenv("ASAN_OPTIONS")) {
    variables.push_back(std::string("ASAN_OPTIONS=") + options);
  }
  std::vector<char*> argv;
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  std::vector<char*> environment;
  for (std::string& variable : variables) {
    environment.push_back(variable.data());
  }
  environment.push_back(nullptr);

  Fd childIn, childOut, childErr;
  int slave = -1;
  if (terminal) {
    int master = -1;
    EXPECT_EQ(::openpty(&master, &slave, nullptr, nullptr, nullptr), 0);
    running.out.reset(master);
    ::fcntl(master, F_SETFD, FD_CLOEXEC);
    running.in = running.out.duplicate();
    childIn.reset(slave);
    childOut = childIn.duplicate();
  } else {
    makePipe(childIn, running.in);
    makePipe(running.out, childOut);
  }
  makePipe(running.err, childErr);
  running.pid = ::fork();
  if (running.pid == 0) {
    ::setsid();
    if (terminal) {
      ::ioctl(childIn.get(), TIOCSCTTY, 0);
    }
    ::dup2(childIn.get(), 0);
    ::dup2(childOut.get(), 1);
    ::dup2(childErr.get(), 2);
    // Inherited descriptors of the test would keep pipes of other commands open.
    ::syscall(SYS_close_range, 3u, ~0u, 0u);
    ::execve(argv[0], argv.data(), environment.data());
    ::_exit(99);
  }
  return running;
}

TestCommand::Result TestCommand::run(const std::vector<std::string>& arguments, const std::string& input) const {
  Running running = start(arguments);
  running.type(input);
  running.in.reset();
  return running.finish();
}

TestCommand::Running::~Running() {
  if (pid > 0) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
}

bool TestCommand::Running::awaitOutput(const std::string& text) {
  const auto deadline = Clock::now() + kPatience;
  while (collected.find(text) == std::string::npos) {
    if (!readSome(out.get(), collected, deadline)) {
      return false;
    }
  }
  return true;
}

void TestCommand::Running::type(const std::string& keys) {
  EXPECT_EQ(::write(in.get(), keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
}

void TestCommand::Running::signal(int number) const {
  ::kill(pid, number);
}

TestCommand::Result TestCommand::Running::finish() {
  Result result;
  const auto deadline = Clock::now() + 2 * kPatience;
  const Fd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  bool ended = false;
  while (!ended && Clock::now() < deadline) {
    pollfd watched[3] = {{out.get(), POLLIN, 0}, {err.get(), POLLIN, 0}, {process.get(), POLLIN, 0}};
    ::poll(watched, 3, 1000);
    bool read = false;
    if (watched[0].revents != 0) {
      read = readSome(out.get(), collected, deadline);
      if (!read) {
        out.reset();
      }
    }
    if (watched[1].revents != 0 && !readSome(err.get(), result.err, deadline)) {
      err.reset();
    }
    ended = watched[2].revents != 0 && !read;
  }
  while (err && readSome(err.get(), result.err, Clock::now() + std::chrono::milliseconds(1))) {
  }
  if (!ended) {
    ADD_FAILURE() << "did not end; it said: " << collected << result.err;
    ::kill(pid, SIGKILL);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  pid = 0;
  result.exitCode = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.out = collected;
  return result;
}

}  // namespace vmmhost::cli
