// vmmhost/host.h as a program uses it that must not be hurt by its guests.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <memory>
#include <mutex>
#include <regex>
#include <set>
#include <vector>

#include "tests/support/built.h"
#include "tests/support/children.h"
#include "tests/support/forbidden_calls.h"
#include "vmmhost/host.h"

namespace vmmhost {
namespace {

class HostApiTest : public testing::Test {
 protected:
  HostApiTest() {
    char folder[] = "/tmp/vmmhost-embed-XXXXXX";
    folder_ = ::mkdtemp(folder);
    options_.installation = tests::built("stage/bin/vmmhost");
    options_.logFile = folder_ + "/host.log";
    options_.runtimeFolder = folder_ + "/run";
  }
  ~HostApiTest() override {
    tests::expectNoForbiddenCall(options_.logFile);
    std::filesystem::remove_all(folder_);
  }

  static std::string config(const std::string& guest) {
    return R"({"boot":{"kernel":")" + tests::built("guests/" + guest) + R"(.elf"},"memory":{"size":"64M"}})";
  }
  VmOptions onUsableBackend() {
    VmOptions options;
    options.backend = ::access("/dev/kvm", R_OK | W_OK) == 0 ? "kvm" : "qemu";
    return options;
  }
  std::string makeDisk() const {
    const std::string disk = folder_ + "/disk";
    std::ofstream(disk).close();
    std::filesystem::resize_file(disk, 1 << 20);
    return disk;
  }
  static std::string configWith(const std::string& disk) {
    return config("loop").insert(1, R"("disks":[{"file":")" + disk + R"("}],)");
  }
  // How often the log tells that a disk of 3 MiB was cut back to the 1 MiB of makeDisk().
  std::ptrdiff_t timesCutBack(const std::string& disk) const {
    std::ifstream log(options_.logFile);
    const std::string said{std::istreambuf_iterator<char>(log), {}};
    const std::string told =
        "disks[0]: " + disk + ": 3145728 bytes long at the VM's end, planned were 1048576: cut back";
    EXPECT_NE(said.find(told), std::string::npos) << said;
    const std::regex longer("3145728 bytes long");
    return std::distance(std::sregex_iterator(said.begin(), said.end(), longer), std::sregex_iterator());
  }
  void expectThatGroupsAreSaidToStay() const {
    std::ifstream log(options_.logFile);
    const std::string text(std::istreambuf_iterator<char>(log), {});
    EXPECT_NE(text.find("control groups are left behind if this program is killed"), std::string::npos) << text;
  }
  static std::string readAll(const Fd& stream) {
    std::string text;
    char buffer[4096];
    for (;;) {
      pollfd ready = {stream.get(), POLLIN, 0};
      if (::poll(&ready, 1, 20000) != 1) {
        return text + "[nothing more came]";
      }
      const ssize_t got = ::read(stream.get(), buffer, sizeof(buffer));
      if (got <= 0) {
        return text;
      }
      text.append(buffer, static_cast<std::size_t>(got));
    }
  }
  static pid_t workerPid(OwnedVm& vm) {
    const std::string text = vm.describe().get();
    std::smatch match;
    EXPECT_TRUE(std::regex_search(text, match, std::regex("\"workerPid\": ([0-9]+)"))) << text;
    return match.empty() ? -1 : std::stoi(match[1]);
  }

  // Folders of the worker's control groups that are its VM's own.
  static std::vector<std::string> groupsOf(pid_t worker) {
    std::vector<std::string> folders;
    std::ifstream list("/proc/" + std::to_string(worker) + "/cgroup");
    for (std::string line; std::getline(list, line);) {
      const std::size_t controllers = line.find(':') + 1;
      const std::size_t path = line.find(':', controllers) + 1;
      if (line.find("/vmmhost-", path) != std::string::npos) {
        const std::string controller = line.substr(controllers, path - 1 - controllers);
        folders.push_back("/sys/fs/cgroup" + (controller.empty() ? "" : '/' + controller) + line.substr(path));
      }
    }
    return folders;
  }
  // A process that embeds a host with a VM, and the worker of that.
  struct Embedding {
    pid_t process = -1;
    pid_t worker = -1;
  };
  Embedding embedInAProcess() {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    Embedding made;
    made.process = ::fork();
    if (made.process == 0) {
      Host host(options_);
      const auto vm = host.start(config("idle"), onUsableBackend()).get();
      const pid_t worker = workerPid(*vm);
      (void)!::write(ends[1], &worker, sizeof(worker));
      while (true) {
        ::pause();
      }
    }
    ::close(ends[1]);
    EXPECT_EQ(::read(ends[0], &made.worker, sizeof(made.worker)), static_cast<ssize_t>(sizeof(made.worker)));
    ::close(ends[0]);
    return made;
  }

  std::string folder_;
  HostOptions options_;
};

TEST_F(HostApiTest, guestThatPowersOff_endsWithItsCause) {
  Host host(options_);
  auto vm = host.start(config("poweroff"), onUsableBackend()).get();
  const Ending ending = vm->wait().get();
  EXPECT_EQ(ending.kind, "guest");
  EXPECT_EQ(ending.cause, "powerOff");
  EXPECT_EQ(ending.exitCode, 0);
  EXPECT_EQ(vm->state(), State::kEnded);
}

TEST_F(HostApiTest, fiftyVmsAtOnce_allAnswerAndLeaveNoDescriptorBehind) {
  constexpr std::size_t kVms = 50;
  const auto descriptors = []() {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return std::distance(begin(all), end(all));
  };
  Host host(options_);
  // What is opened once and kept (the plugin, the log) does not count.
  host.start(config("poweroff"), onUsableBackend()).get()->wait().get();
  const auto before = descriptors();
  {
    std::vector<std::future<std::unique_ptr<OwnedVm>>> starting;
    for (std::size_t index = 0; index < kVms; ++index) {
      starting.push_back(host.start(config("idle"), onUsableBackend()));
    }
    std::vector<std::unique_ptr<OwnedVm>> vms;
    for (auto& vm : starting) {
      vms.push_back(vm.get());
    }
    for (const auto& vm : vms) {
      EXPECT_EQ(vm->state(), State::kRunning);
    }
    for (const auto& vm : vms) {
      vm->pause().get();
      vm->resume().get();
      EXPECT_EQ(vm->stop().get().kind, "stopped");
    }
  }
  EXPECT_EQ(descriptors(), before);
}

TEST_F(HostApiTest, consoleGoesBothWays) {
  Host host(options_);
  auto vm = host.start(config("serial_echo"), onUsableBackend()).get();
  const Fd console = vm->console(65536, true).get();
  ASSERT_EQ(::write(console.get(), "ping\x04", 5), 5);
  EXPECT_NE(readAll(console).find("ping"), std::string::npos);
  EXPECT_EQ(vm->wait().get().cause, "powerOff");
}

TEST_F(HostApiTest, stateChangesAreTold_inOrderAndOnce) {
  Host host(options_);
  std::mutex mutex;
  std::vector<State> seen;
  VmOptions options = onUsableBackend();
  options.onState = [&](State state, const std::string&) {
    std::lock_guard lock(mutex);
    seen.push_back(state);
  };
  auto vm = host.start(config("loop"), options).get();
  vm->pause().get();
  EXPECT_EQ(vm->state(), State::kPaused);
  vm->resume().get();
  EXPECT_EQ(vm->state(), State::kRunning);
  EXPECT_EQ(vm->stop().get().kind, "stopped");
  std::lock_guard lock(mutex);
  EXPECT_EQ(seen, (std::vector<State>{State::kCreated, State::kRunning, State::kPaused, State::kRunning,
                                      State::kStopping, State::kEnded}));
}

TEST_F(HostApiTest, killedWorker_endsOneVmAndNothingElse) {
  Host host(options_);
  auto victim = host.start(config("loop"), onUsableBackend()).get();
  auto neighbour = host.start(config("loop"), onUsableBackend()).get();
  ASSERT_EQ(::kill(workerPid(*victim), SIGKILL), 0);
  EXPECT_EQ(victim->wait().get().kind, "workerDied");
  EXPECT_EQ(neighbour->state(), State::kRunning);
  try {
    victim->pause().get();
    ADD_FAILURE() << "was paused";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kFailedPrecondition) << error.what();
  }
}

TEST_F(HostApiTest, controlGroupsOfAKilledProgram_areRemovedByTheNextHostAndByAnyCommand) {
  const std::string command = "env VMMHOST_RUNTIME_DIR=" + folder_ + "/run VMMHOST_STATE_DIR=" + folder_ + "/state " +
                              tests::built("stage/bin/vmmhost") + " ps >" + folder_ + "/ps.out 2>&1";
  for (const bool byCommand : {false, true}) {
    const Embedding program = embedInAProcess();
    const std::vector<std::string> groups = groupsOf(program.worker);
    ::kill(program.process, SIGKILL);
    ::waitpid(program.process, nullptr, 0);
    if (groups.empty()) {
      GTEST_SKIP() << "no control group can be made here";
    }
    for (const std::string& group : groups) {
      EXPECT_TRUE(std::filesystem::exists(group)) << group;
    }
    if (byCommand) {
      EXPECT_EQ(std::system(command.c_str()), 0);
    } else {
      Host next(options_);
    }
    for (const std::string& group : groups) {
      EXPECT_FALSE(std::filesystem::exists(group)) << group;
    }
    EXPECT_TRUE(std::filesystem::is_empty(folder_ + "/run/.owned"));
  }
}

TEST_F(HostApiTest, vmsOfOneName_haveControlGroupsOfTheirOwn) {
  Host host(options_);
  const std::string named = R"({"name":"same",)" + config("idle").substr(1);
  const auto one = host.start(named, onUsableBackend()).get();
  const auto other = host.start(named, onUsableBackend()).get();
  const std::vector<std::string> groups = groupsOf(workerPid(*one));
  if (groups.empty()) {
    GTEST_SKIP() << "no control group can be made here";
  }
  EXPECT_NE(groups, groupsOf(workerPid(*other)));
}

TEST_F(HostApiTest, runtimeFolderThatCannotBe_isToldAndNoHindrance) {
  options_.runtimeFolder = options_.installation + "/no/folder";
  {
    Host host(options_);
    EXPECT_EQ(host.start(config("poweroff"), onUsableBackend()).get()->wait().get().kind, "guest");
  }
  expectThatGroupsAreSaidToStay();
}

TEST_F(HostApiTest, runtimeFolderThatTakesNoNotes_isToldAndNoHindrance) {
  std::filesystem::create_directory(options_.runtimeFolder);
  std::filesystem::permissions(options_.runtimeFolder, std::filesystem::perms::owner_all);
  std::ofstream(options_.runtimeFolder + "/.owned") << "something else";
  {
    Host host(options_);
    EXPECT_EQ(host.start(config("poweroff"), onUsableBackend()).get()->wait().get().kind, "guest");
  }
  expectThatGroupsAreSaidToStay();
}

TEST_F(HostApiTest, runtimeFolderThatIsFull_isToldAndNoHindrance) {
  std::filesystem::create_directory(options_.runtimeFolder);
  const pid_t program = ::fork();
  if (program == 0) {
    // A file system of one page, in which files can be made and nothing be written.
    if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("none", options_.runtimeFolder.c_str(), "tmpfs", 0, "size=4k,mode=0700") != 0) {
      ::_exit(2);
    }
    std::ofstream(options_.runtimeFolder + "/page") << std::string(4096, 'x') << std::flush;
    try {
      Host host(options_);
      const Ending ending = host.start(config("poweroff"), onUsableBackend()).get()->wait().get();
      ::_exit(ending.kind == "guest" ? 0 : 1);
    } catch (const Error& error) {
      (void)!::write(2, error.message().data(), error.message().size());
      ::_exit(1);
    }
  }
  int status = 0;
  ASSERT_EQ(::waitpid(program, &status, 0), program);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 2) {
    GTEST_SKIP() << "no file system can be mounted here";
  }
  EXPECT_EQ(WEXITSTATUS(status), 0);
  expectThatGroupsAreSaidToStay();
}

TEST_F(HostApiTest, destroyedHandle_takesItsWorkerAlong) {
  Host host(options_);
  auto vm = host.start(config("loop"), onUsableBackend()).get();
  const pid_t pid = workerPid(*vm);
  ASSERT_GT(pid, 0);
  EXPECT_EQ(::kill(pid, 0), 0);
  EXPECT_EQ(tests::children(), std::set<pid_t>{pid});
  vm.reset();
  EXPECT_EQ(::kill(pid, 0), -1);
  EXPECT_EQ(errno, ESRCH);
  EXPECT_EQ(tests::children(), std::set<pid_t>{});
}

TEST_F(HostApiTest, diskThatBecameLonger_isCutBack_howeverItsVmEnds) {
  std::string disk;
  for (const bool isStopped : {true, false}) {
    disk = makeDisk();
    {
      Host host(options_);
      auto vm = host.start(configWith(disk), onUsableBackend()).get();
      std::filesystem::resize_file(disk, 3 << 20);
      if (isStopped) {
        vm->stop().get();
        EXPECT_EQ(std::filesystem::file_size(disk), 1u << 20) << "once it has ended";
      }
    }
    EXPECT_EQ(std::filesystem::file_size(disk), 1u << 20) << isStopped;
  }
  EXPECT_EQ(timesCutBack(disk), 2);
}

// A host that goes ends what it has started; a VM that nobody has a handle of yet goes along without an end of its own.
TEST_F(HostApiTest, diskThatBecameLonger_isCutBack_whereItsHostGoesWhileItStarts) {
  const std::string disk = makeDisk();
  std::promise<void> created;
  VmOptions options = onUsableBackend();
  options.onState = [&](State state, const std::string&) {
    if (state != State::kCreated) {
      EXPECT_EQ(state, State::kPreparing) << "it has not started, and does not end";
      return;
    }
    const std::set<pid_t> workers = tests::children();
    EXPECT_EQ(workers.size(), 1u);
    for (const pid_t worker : workers) {  // asked to start the VM it does not answer any more
      siginfo_t info = {};
      EXPECT_EQ(::kill(worker, SIGSTOP), 0);
      EXPECT_EQ(::waitid(P_PID, static_cast<id_t>(worker), &info, WSTOPPED | WNOWAIT | __WALL), 0);
    }
    std::filesystem::resize_file(disk, 3 << 20);
    created.set_value();
  };
  {
    Host host(options_);
    const auto starting = host.start(configWith(disk), options);
    ASSERT_EQ(created.get_future().wait_for(std::chrono::seconds(60)), std::future_status::ready);
  }
  EXPECT_EQ(tests::children(), std::set<pid_t>{});
  EXPECT_EQ(std::filesystem::file_size(disk), 1u << 20);
  EXPECT_EQ(timesCutBack(disk), 1);
}

TEST_F(HostApiTest, handleNobodyTook_isCleanedUp) {
  std::promise<void> running;
  std::promise<void> ended;
  VmOptions options = onUsableBackend();
  options.onState = [&](State state, const std::string&) {
    if (state == State::kRunning) {
      running.set_value();
    } else if (state == State::kEnded) {
      ended.set_value();
    }
  };
  {
    Host host(options_);
    host.start(config("loop"), options);
    ASSERT_EQ(running.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
    EXPECT_EQ(ended.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
    // Its worker has ended, though the host lives on.
    EXPECT_EQ(tests::children(), std::set<pid_t>{});
    EXPECT_EQ(host.start(config("poweroff"), onUsableBackend()).get()->wait().get().cause, "powerOff");
  }
  EXPECT_EQ(tests::children(), std::set<pid_t>{});
}

TEST_F(HostApiTest, twoHosts_liveInOneProcess) {
  Host one(options_);
  Host two(options_);
  auto first = one.start(config("loop"), onUsableBackend()).get();
  auto second = two.start(config("loop"), onUsableBackend()).get();
  first.reset();
  EXPECT_EQ(second->state(), State::kRunning);
}

TEST_F(HostApiTest, whatIsWrong_isAnErrorWithCodeAndName) {
  Host host(options_);
  const auto codeOf = [&](const std::string& json, const std::string& backend) {
    VmOptions options;
    options.backend = backend;
    try {
      host.start(json, options).get();
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::kUnknown;
  };
  EXPECT_EQ(codeOf("{", "kvm"), ErrorCode::kInvalidArgument);
  EXPECT_EQ(codeOf(R"({"boot":{"kernel":"/no/such/file"}})", "qemu"), ErrorCode::kNotFound);
  EXPECT_EQ(codeOf(config("poweroff"), "nosuch"), ErrorCode::kNotFound);
  VmOptions bare = onUsableBackend();
  bare.withoutJailParts = {"seccomp"};
  try {
    host.start(config("poweroff"), bare).get();
    ADD_FAILURE() << "a part that there is not was given up";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(error.message().find("\"seccomp\""), std::string::npos) << error.message();
  }
}

// What the command can do with a VM its owner can do as well.
TEST_F(HostApiTest, abilities_areTheOwnersToo_orRefusedByName) {
  Host host(options_);
  const auto codeOf = [](auto future) {
    try {
      future.get();
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::kUnknown;
  };
  const std::string devices =
      R"("balloon":{"targetSize":"4M"},"vsock":{},"consoles":[{"kind":"serial"},{"kind":"virtio"}],)";
  VmOptions options = onUsableBackend();
  options.backend = "kvm";
  if (::access("/dev/kvm", R_OK | W_OK) != 0) {
    GTEST_SKIP() << "no other backend has all of them";
  }
  options.vsockFolder = folder_;
  const auto vm = host.start(config("idle").insert(1, devices), options).get();
  EXPECT_EQ(vm->balloon().get().target, 4U << 20);
  vm->setBalloon(8 << 20).get();
  EXPECT_EQ(vm->balloon().get().target, 8U << 20);
  EXPECT_EQ(codeOf(vm->setBalloon(std::uint64_t{1} << 40)), ErrorCode::kInvalidArgument);
  vm->resizeConsole(1, 80, 25).get();
  EXPECT_NE(codeOf(vm->resizeConsole(7, 80, 25)), ErrorCode::kUnknown);
  EXPECT_TRUE(vm->connectVsock(1000).get());
  EXPECT_NE(vm->describe().get().find("\"console-size\""), std::string::npos);

  const auto bare = host.start(config("idle"), options).get();
  EXPECT_EQ(codeOf(bare->balloon()), ErrorCode::kUnsupported);
  EXPECT_EQ(codeOf(bare->setBalloon(1)), ErrorCode::kUnsupported);
  EXPECT_EQ(codeOf(bare->connectVsock(1000)), ErrorCode::kFailedPrecondition);
  bare->stop().get();
  EXPECT_EQ(codeOf(bare->balloon()), ErrorCode::kFailedPrecondition);
}

TEST_F(HostApiTest, emptyBackend_isChosen) {
  Host host(options_);
  VmOptions options;
  options.backend = "";
  EXPECT_EQ(host.start(config("poweroff"), options).get()->wait().get().kind, "guest");
}

TEST_F(HostApiTest, backendsAreListed) {
  Host host(options_);
  const auto backends = host.backends(false);
  EXPECT_TRUE(std::any_of(backends.begin(), backends.end(), [](const auto& one) { return one.name == "qemu"; }));
}

}  // namespace
}  // namespace vmmhost
