// Workers of the real backends as root sees them from outside: their filters as the kernel has them, compared with the
// policy tables, and the rest of the jail with seccomp lifted.
#include <gtest/gtest.h>
#include <linux/kvm.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>

#include "tests/hostile/tracer.h"
#include "tests/support/built.h"
#include "vmmhost/confinement.h"
#include "vmmhost/rings.h"
#include "vmmhost/seccomp.h"

namespace vmmhost::hostile {
namespace {

namespace fs = std::filesystem;

constexpr int kExecutableSlot = 256;  // RLIMIT_NOFILE of a worker, see ipc/jail/spawn

struct Backend {
  const char* name;
  const char* worker;
  const char* jail;  // for the hostile one
  const char* policy;
  unsigned rings = 0;
  unsigned epolls = 1;
};
constexpr Backend kBackends[] = {{"kvm", "vmmhost-worker-kvm", "", "worker-static", 0, 3},
                                 {"qemu", "vmmhost-worker-qemu", "", "worker-system"},
                                 {"hostile", "hostile-worker", "static", "worker-static", 1},
                                 {"hostile", "hostile-worker-dynamic", "system", "worker-system"}};

bool isSame(const std::vector<sock_filter>& one, const std::vector<sock_filter>& other) {
  return one.size() == other.size() && std::memcmp(one.data(), other.data(), one.size() * sizeof(sock_filter)) == 0;
}

std::string readAll(const std::string& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

class Outside : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "reading another process's filters takes root";
    }
    std::string pattern = (fs::temp_directory_path() / "vmmhost-outside-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    environment_ = {"PATH=/usr/bin:/bin", "HOME=" + folder_, "VMMHOST_RUNTIME_DIR=" + folder_ + "/run",
                    "VMMHOST_STATE_DIR=" + folder_ + "/state",
                    "VMMHOST_PLUGIN_PATH=" + tests::built("lib/hostile-plugins")};
  }
  void TearDown() override {
    if (!folder_.empty()) {
      std::error_code ignored;
      fs::remove_all(folder_, ignored);
    }
  }

  static bool canRun(const Backend& backend) {
    return std::strcmp(backend.name, "kvm") != 0 || ::access("/dev/kvm", R_OK | W_OK) == 0;
  }

  std::vector<std::string> runOf(const Backend& backend, const std::string& attack = "counters-random",
                                 const std::string& moment = "start") const {
    std::vector<std::string> command = {tests::built("stage/bin/vmmhost"),
                                        "run",
                                        "--backend",
                                        backend.name,
                                        "--json",
                                        "--memory",
                                        "64M",
                                        "--timeout",
                                        "20"};
    if (*backend.jail == '\0') {
      command.insert(command.end(), {"--rm", "--kernel", tests::built("guests/poweroff.elf")});
      return command;
    }
    std::ofstream(folder_ + "/vm.json")
        << R"({"boot":{"kernel":"vm.json"},"platform":{"options":[{"name":"attack","value":")" << attack
        << R"("},{"name":"moment","value":")" << moment << R"("},{"name":"jail","value":")" << backend.jail
        << R"("},{"name":"token","value":"outside"}]}})";
    command.insert(command.end(), {"--rm", "-f", "vm.json"});
    return command;
  }

  // A command that is not traced; its output.
  std::string vmmhost(const std::vector<std::string>& arguments) const {
    std::string line = "env -i";
    for (const std::string& variable : environment_) {
      line += " '" + variable + "'";
    }
    line += " " + tests::built("stage/bin/vmmhost");
    for (const std::string& argument : arguments) {
      line += " '" + argument + "'";
    }
    std::string output;
    FILE* stream = ::popen((line + " 2>&1 </dev/null").c_str(), "r");
    char block[4096];
    for (std::size_t got = 0; (got = std::fread(block, 1, sizeof block, stream)) > 0;) {
      output.append(block, got);
    }
    ::pclose(stream);
    return output;
  }

  std::string folder_;
  std::vector<std::string> environment_;
};

TEST_F(Outside, filterAtExec_isThePolicysProgram_andTheOnlyOne) {
  int seen = 0;
  for (const Backend& backend : kBackends) {
    if (!canRun(backend)) {
      continue;
    }
    TraceOptions options;
    options.worker = backend.worker;
    options.atExec = [&](pid_t pid) {
      const Filters filters = filtersOf(pid);
      ASSERT_EQ(filters.size(), 1u);
      const auto wanted = seccomp::compile(seccomp::basePolicy(backend.policy, {kExecutableSlot, backend.rings}));
      EXPECT_TRUE(isSame(filters.front(), wanted)) << backend.worker;
      // Before its first instruction everything else stands, too, and it holds four descriptors, its rings and its
      // instances of epoll.
      confinement::Expectation expected;
      expected.pid = pid;
      struct stat status {};
      ASSERT_EQ(::stat(("/proc/" + std::to_string(pid) + "/status").c_str(), &status), 0);
      const std::string text = readAll("/proc/" + std::to_string(pid) + "/status");
      std::smatch uid;
      ASSERT_TRUE(std::regex_search(text, uid, std::regex("Uid:\t([0-9]+)")));
      EXPECT_NE(uid[1], "0");
      expected.hostUid = expected.hostGid = static_cast<uid_t>(std::stoul(uid[1]));
      expected.newNamespaces = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"};
      expected.rootIsReadOnly = false;  // the mounts differ by backend; the host looks at them
      expected.descriptors = std::vector<int>{0, 1, 2, 3};
      for (unsigned epoll = 0; epoll < backend.epolls; ++epoll) {
        expected.descriptors->push_back(rings::kFirstDescriptor + static_cast<int>(backend.rings + epoll));
      }
      expected.firstRing = rings::kFirstDescriptor;
      expected.rings = backend.rings;
      for (const std::string& violation : confinement::verify(expected).violations) {
        ADD_FAILURE() << backend.worker << ": " << violation;
      }
    };
    const Traced traced = trace(runOf(backend), environment_, folder_, options);
    EXPECT_TRUE(traced.wasSeen) << backend.worker << ": " << traced.output;
    EXPECT_EQ(traced.exitCode, 0) << backend.worker << ": " << traced.output;
    seen += traced.wasSeen ? 1 : 0;
  }
  EXPECT_GE(seen, 3);
}

// A worker that does not notice that its host is gone.
TEST_F(Outside, supervisorThatDiesWhileItsWorkerIsMade_leavesNoOrphan_andPsKnows) {
  for (const int call : {2, 5, 20, 60, 120}) {  // of about 170; orphan_test goes through all of them
    TraceOptions options;
    options.killAtCall = call;
    std::vector<std::string> command = runOf(kBackends[2], "sit", "constructor");
    std::replace(command.begin(), command.end(), std::string("--rm"), std::string("--name=killed"));
    const Traced traced = trace(command, environment_, folder_, options);
    ASSERT_TRUE(traced.wasKilled) << "the worker was executed before its call " << call
                                  << ", or not begun: " << traced.output;
    ASSERT_TRUE(traced.child);
    EXPECT_NE(traced.exitCode, 0);
    pollfd gone = {traced.child.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&gone, 1, 10'000), 1) << "killed before system call " << call << " of its worker";
    ::syscall(SYS_pidfd_send_signal, traced.child.get(), SIGKILL, nullptr, 0);
    const std::string listed = vmmhost({"ps", "--all"});
    EXPECT_NE(listed.find("killed"), std::string::npos) << call << ": " << listed;
    const std::string told = vmmhost({"inspect", "killed"});
    EXPECT_NE(told.find("supervisorDied"), std::string::npos) << call << ": " << told;
    vmmhost({"rm", "killed"});
  }
}

// The verdict of all filters of a thread together: the strictest counts (seccomp(2)).
bool isAllowed(const Filters& filters, std::uint32_t number, std::array<std::uint64_t, 6> arguments = {}) {
  seccomp_data call{};
  call.nr = static_cast<int>(number);
  call.arch = seccomp::kAuditArch;
  std::copy(arguments.begin(), arguments.end(), call.args);
  return std::all_of(filters.begin(), filters.end(), [&](const std::vector<sock_filter>& program) {
    return seccomp::evaluate(program, call) == SECCOMP_RET_ALLOW;
  });
}

TEST_F(Outside, runningKvmWorker_hasGrownFiltersOnEveryThread_andNoDevKvm) {
  if (::access("/dev/kvm", R_OK | W_OK) != 0) {
    GTEST_SKIP() << "there is no /dev/kvm here";
  }
  vmmhost({"run", "--backend", "kvm", "--name", "watched", "--detach", "--memory", "64M", "--kernel",
           tests::built("guests/loop.elf")});
  const std::string info = vmmhost({"inspect", "watched", "--json"});
  std::smatch match;
  ASSERT_TRUE(std::regex_search(info, match, std::regex("\"workerPid\": ([0-9]+)"))) << info;
  const pid_t pid = std::stoi(match[1]);
  const std::string folder = "/proc/" + std::to_string(pid);

  int threads = 0;
  for (const auto& entry : fs::directory_iterator(folder + "/task")) {
    const std::string status = readAll(entry.path().string() + "/status");
    ASSERT_TRUE(std::regex_search(status, match, std::regex("Seccomp_filters:\t([0-9]+)"))) << status;
    EXPECT_GE(std::stoi(match[1]), 3) << "base, creation and its own: " << entry.path();
    EXPECT_NE(status.find("Seccomp:\t2"), std::string::npos) << entry.path();
    ++threads;
  }
  EXPECT_GE(threads, 2);

  const auto base = seccomp::compile(seccomp::basePolicy("worker-static", {kExecutableSlot}));
  std::set<std::uint64_t> runnable;
  for (const Filters& filters : filtersOfThreads(pid)) {
    ASSERT_FALSE(filters.empty()) << "a thread without filters";
    EXPECT_TRUE(isSame(filters.front(), base));
    EXPECT_TRUE(isAllowed(filters, __NR_exit));
    for (std::uint32_t number :
         {__NR_openat, __NR_socket, __NR_connect, __NR_execve, __NR_execveat, __NR_clone, __NR_memfd_create,
          __NR_epoll_create1, __NR_seccomp, __NR_io_uring_setup, __NR_ptrace}) {
      EXPECT_FALSE(isAllowed(filters, number)) << number;
    }
    for (const std::uint64_t request :
         std::initializer_list<std::uint64_t>{KVM_CREATE_VM, KVM_CREATE_VCPU, KVM_CREATE_DEVICE, KVM_ENABLE_CAP,
                                              KVM_SET_USER_MEMORY_REGION, KVM_CHECK_EXTENSION}) {
      for (std::uint64_t descriptor = 0; descriptor < 64; ++descriptor) {
        EXPECT_FALSE(isAllowed(filters, __NR_ioctl, {descriptor, request})) << request;
      }
    }
    std::set<std::uint64_t> here;
    for (std::uint64_t descriptor = 0; descriptor < 64; ++descriptor) {
      if (isAllowed(filters, __NR_ioctl, {descriptor, KVM_RUN})) {
        here.insert(descriptor);
      }
    }
    // Newer kernels have a task of their own in the process, made by a virtual CPU's thread and with its filters.
    EXPECT_LE(here.size(), 1u) << "KVM_RUN on more than the descriptor of one virtual CPU";
    runnable.insert(here.begin(), here.end());
  }
  EXPECT_EQ(runnable.size(), 1u);

  bool hasVm = false;
  for (const auto& entry : fs::directory_iterator(folder + "/fd")) {
    const fs::path target = fs::read_symlink(entry.path());
    EXPECT_NE(target, "/dev/kvm") << "the worker has kept " << entry.path();
    hasVm = hasVm || target == "anon_inode:kvm-vm";
  }
  EXPECT_TRUE(hasVm) << "descriptors can be told apart";
  vmmhost({"rm", "--force", "watched"});
}

std::string outcomeOf(const std::string& output) {
  std::smatch match;
  return std::regex_search(output, match, std::regex("\"detail\": \"(attack [^\"]*)\"")) ? match[1].str() : output;
}

class Lifted : public Outside {
 protected:
  // What comes of an attack at start when seccomp does not count.
  std::string withoutSeccomp(const Backend& backend, const char* attack, const std::vector<std::string>& more = {},
                             const char* moment = "start") {
    TraceOptions options;
    options.worker = backend.worker;
    options.suspendSeccomp = true;
    std::vector<std::string> command = runOf(backend, attack, moment);
    command.insert(command.end(), more.begin(), more.end());
    const Traced traced = trace(command, environment_, folder_, options);
    EXPECT_TRUE(traced.wasSeen) << traced.output;
    return outcomeOf(traced.output);
  }
  static std::string failed(const std::string& attack, int error) {
    return "attack " + attack + ": errno " + std::to_string(error);
  }
  static std::string succeeded(const std::string& attack) { return "attack " + attack + ": succeeded"; }
};

TEST_F(Lifted, landlock_holdsAlone) {
  const Backend& empty = kBackends[2];
  const Backend& system = kBackends[3];
  // The same with Landlock and without it: it is what refuses.
  EXPECT_EQ(withoutSeccomp(empty, "open-root"), failed("open-root", EACCES));
  EXPECT_EQ(withoutSeccomp(empty, "open-root", {"--without", "landlock"}), succeeded("open-root"));
  // While it is dumpable yet: later its files in /proc are not its own.
  EXPECT_EQ(withoutSeccomp(system, "write-own-proc", {}, "constructor"), failed("write-own-proc", EACCES));
  EXPECT_EQ(withoutSeccomp(system, "write-own-proc", {"--without", "landlock"}, "constructor"),
            succeeded("write-own-proc"));
}

TEST_F(Lifted, restOfTheJail_holdsAlone) {
  for (const Backend* backend : {&kBackends[2], &kBackends[3]}) {
    for (const auto& [attack, error] : {std::pair("mount", EPERM),
                                        {"unmount", EPERM},
                                        {"pivot-root", EPERM},
                                        {"change-root", EPERM},
                                        {"set-host-name", EPERM},
                                        {"unshare-user", ENOSPC},
                                        {"clone-namespace", ENOSPC},
                                        {"set-groups", EPERM},
                                        {"socket-packet", EPERM},
                                        {"reboot", EPERM}}) {
      EXPECT_EQ(withoutSeccomp(*backend, attack), failed(attack, error)) << backend->worker;
    }
  }
}

}  // namespace
}  // namespace vmmhost::hostile
