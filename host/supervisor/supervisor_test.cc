// A whole supervisor in a process of its own, as `vmmhost run` starts it, with the worker of tests/fake.
#include <capnp/message.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "host/base/build_info.h"
#include "host/client/control_client.h"
#include "host/client/launch.h"
#include "host/runtime/directories.h"
#include "host/runtime/record.h"
#include "ipc/rpc/connection.h"
#include "tests/support/built.h"
#include "tests/support/control_groups.h"
#include "tests/support/forbidden_calls.h"

namespace vmmhost::supervisor {
namespace {

namespace fs = std::filesystem;
using client::await;
using client::ControlClient;
using schema::EndKind;
using schema::VmState;

constexpr int kPatienceMs = 30'000;

class SupervisorTest : public ::testing::Test {
 protected:
  SupervisorTest() {
    std::string pattern = ::testing::TempDir() + "vmmhost-supervisor-XXXXXX";
    root_ = ::mkdtemp(pattern.data());
    // A prefix with what a supervisor needs of it.
    fs::create_directories(root_ / VMMHOST_LIBEXEC);
    for (const char* program : {"vmmhost-supervisor", "vmmhost-plugin-probe"}) {
      fs::copy_file(tests::built(std::string("bin/") + program), root_ / VMMHOST_LIBEXEC / program);
    }
    ::setenv("XDG_CACHE_HOME", (root_ / "cache").c_str(), 1);
  }
  ~SupervisorTest() noexcept override {
    for (const auto& supervisor : started_) {
      client::killSupervisor(*supervisor);
      client::reapSupervisor(*supervisor, kPatienceMs);
    }
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }

  struct Running {
    std::unique_ptr<ControlClient> control;  // of the command that started it
    client::LaunchedSupervisor* process = nullptr;
  };
  using Change = std::function<void(schema::LaunchRequest::Builder)>;
  Running launch(const std::string& guest, const std::string& faults = {}, const Change& change = {}) {
    capnp::MallocMessageBuilder message;
    auto request = message.initRoot<schema::LaunchRequest>();
    auto config = request.initConfig();
    config.setName("v");
    config.initBoot().initKernel().setPath(tests::built("guests/" + guest + ".elf"));
    config.getBoot().setCmdline(faults);
    config.initMemory().setSize(std::uint64_t{8} << 20);
    request.setBackend("fake");
    request.setWorkingDirectory("/");
    request.setRuntimeDirectory((root_ / "run").c_str());
    request.setStateDirectory((root_ / "state").c_str());
    request.setPluginPath(tests::built("lib/fake-plugins"));
    if (change) {
      change(request);
    }
    started_.push_back(std::make_unique<client::LaunchedSupervisor>(
        client::launchSupervisor((root_ / VMMHOST_LIBEXEC / "vmmhost-supervisor").string(), request.asReader())));
    client::LaunchedSupervisor& supervisor = *started_.back();
    return {std::make_unique<ControlClient>(io_, std::move(supervisor.control), "v"), &supervisor};
  }
  Running launchAndAwait(const std::string& guest, const std::string& faults = {}, const Change& change = {}) {
    Running running = launch(guest, faults, change);
    await(io_, running.control->started());
    return running;
  }
  template <typename T>
  Error failure(kj::Promise<T> promise) {
    try {
      await(io_, kj::mv(promise));
    } catch (const Error& error) {
      return error;
    }
    ADD_FAILURE() << "did not fail";
    return Error(ErrorCode::kUnknown, "");
  }
  // Of the process; the command that started it is gone then.
  std::string endOf(Running& running) {
    running.control.reset();
    return client::reapSupervisor(*running.process, kPatienceMs);
  }

  runtime::Directories directories() const {
    return runtime::Directories::open({(root_ / "run").string(), (root_ / "state").string()});
  }
  std::unique_ptr<ControlClient> connect(const std::string& name = "v") {
    return std::make_unique<ControlClient>(
        io_, runtime::awaitControl(directories(), runtime::vmName(name), std::chrono::milliseconds(kPatienceMs)), name);
  }
  std::string read(const fs::path& path) const {
    std::ifstream file(root_ / path);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  bool exists(const fs::path& path) const { return fs::exists(root_ / path); }
  // What the end of a VM leaves: its state, if that is kept, and nothing else.
  void expectNothingLeft(const Running& running, bool isKept, const std::string& name = "v") {
    EXPECT_FALSE(exists("run/" + name));
    EXPECT_EQ(exists("state/" + name), isKept);
    EXPECT_EQ(tests::controlGroups("-" + std::to_string(running.process->pid)), std::set<std::string>());
    tests::expectNoForbiddenCall((root_ / "state" / name / "vmmhost.log").string());
  }
  void expectKind(const char* kind) {
    const std::string json = read("state/v/exit.json");
    EXPECT_NE(json.find(std::string("\"kind\": \"") + kind + '"'), std::string::npos) << json;
  }

  fs::path root_;
  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  std::vector<std::unique_ptr<client::LaunchedSupervisor>> started_;
};

TEST_F(SupervisorTest, runningVm_hasItsNameRecordAndSocket) {
  Running running = launchAndAwait("loop");
  const auto info = await(io_, running.control->info());
  EXPECT_EQ(info.getInfo().getState(), VmState::RUNNING);
  EXPECT_EQ(info.getInfo().getSupervisorPid(), running.process->pid);
  EXPECT_EQ(std::string(info.getInfo().getSupervisorBuild().cStr()), kBuild);
  EXPECT_STREQ(info.getInfo().getBackend().cStr(), "fake");
  EXPECT_FALSE(info.getInfo().getDetached());
  EXPECT_GT(info.getInfo().getStateBounds().getVm(), 0u);

  const auto record = runtime::parseRecord(read(fs::path("run/v") / runtime::kRecordFile));
  ASSERT_TRUE(record);
  EXPECT_EQ(record->name, "v");
  EXPECT_EQ(record->backend, "fake");
  EXPECT_EQ(record->supervisorPid, running.process->pid);
  const std::vector<runtime::Entry> entries = runtime::list(directories(), runtime::Kind::kVm);
  ASSERT_EQ(entries.size(), 1u);
  EXPECT_TRUE(entries[0].alive);
  EXPECT_EQ(await(io_, connect()->info()).getInfo().getSupervisorPid(), running.process->pid);

  const auto stopped = await(io_, connect()->stop(EndKind::STOPPED, "by a test"));
  EXPECT_EQ(stopped.getOutcome().getExitCode(), 143);
  EXPECT_EQ(endOf(running), "exited with code 143");
  expectNothingLeft(running, true);
  expectKind("stopped");
  EXPECT_NE(read("state/v/console.log").find("looping"), std::string::npos);
  EXPECT_NE(read("state/v/vmmhost.log").find("vm: running"), std::string::npos);
}

TEST_F(SupervisorTest, endOfTheGuest_isTheExitCode) {
  for (const auto& [guest, code] :
       std::vector<std::pair<std::string, int>>{{"hello", 0}, {"reset", 3}, {"triple_fault", 1}}) {
    SCOPED_TRACE(guest);
    Running running = launch(guest, "", [](schema::LaunchRequest::Builder request) { request.setRemoveOnEnd(true); });
    const auto outcome = await(io_, running.control->wait());
    EXPECT_EQ(outcome.getOutcome().getKind(), EndKind::GUEST);
    EXPECT_EQ(outcome.getOutcome().getExitCode(), code);
    // All is gone when the answer comes, and not only when the process is.
    expectNothingLeft(running, false);
    EXPECT_EQ(endOf(running), "exited with code " + std::to_string(code));
  }
}

TEST_F(SupervisorTest, commandThatIsLate_isStillAnswered) {
  Running running = launchAndAwait("hello");
  await(io_, running.control->wait());
  const auto info = await(io_, running.control->info());
  EXPECT_EQ(info.getInfo().getState(), VmState::ENDED);
  const Fd console = await(io_, running.control->console(1000, false));
  std::string said;
  char buffer[256];
  pollfd ready = {console.get(), POLLIN, 0};
  for (ssize_t got = 1; got > 0 && ::poll(&ready, 1, kPatienceMs) == 1;) {
    got = ::recv(console.get(), buffer, sizeof buffer, 0);
    said.append(buffer, got > 0 ? static_cast<std::size_t>(got) : 0);
  }
  EXPECT_EQ(said, "hello from the guest\ngood bye\n");
  EXPECT_EQ(endOf(running), "exited with code 0");
}

TEST_F(SupervisorTest, nameThatIsTaken_isRefused_andItsOwnerUnharmed) {
  Running first = launchAndAwait("loop");
  const std::string record = read(fs::path("run/v") / runtime::kRecordFile);
  Running second = launch("loop");
  const Error error = failure(second.control->started());
  EXPECT_EQ(error.code(), ErrorCode::kAlreadyExists);
  EXPECT_NE(error.message().find('v'), std::string::npos);
  EXPECT_EQ(endOf(second), "exited with code 125");
  EXPECT_EQ(read(fs::path("run/v") / runtime::kRecordFile), record);
  EXPECT_EQ(await(io_, connect()->info()).getInfo().getState(), VmState::RUNNING);

  Running other = launchAndAwait("loop", "", [](schema::LaunchRequest::Builder request) {
    request.getConfig().setName("w");
    request.setRemoveOnEnd(true);
  });
  await(io_, other.control->stop(EndKind::STOPPED, ""));
  EXPECT_EQ(endOf(other), "exited with code 143");
  expectNothingLeft(other, false, "w");

  await(io_, first.control->stop(EndKind::STOPPED, ""));
  EXPECT_EQ(endOf(first), "exited with code 143");
  // What it left has its name still.
  Running late = launch("loop");
  const Error kept = failure(late.control->started());
  EXPECT_EQ(kept.code(), ErrorCode::kAlreadyExists);
  EXPECT_NE(kept.hint().find("vmmhost rm"), std::string::npos) << kept.hint();
  EXPECT_EQ(endOf(late), "exited with code 125");
  expectKind("stopped");
}

TEST_F(SupervisorTest, refusals_arriveWhole_andLeaveNothing) {
  struct Case {
    const char* what;
    Change change;
    ErrorCode code;
    const char* field;
    int exitCode;
  };
  for (const Case& refused :
       std::vector<Case>{{"backend", [](auto request) { request.setBackend("nosuch"); }, ErrorCode::kNotFound, "", 127},
                         {"configuration", [](auto request) { request.getConfig().initMemory().setSize(0); },
                          ErrorCode::kInvalidArgument, "memory.size", 125},
                         {"name", [](auto request) { request.getConfig().setName("../w"); },
                          ErrorCode::kInvalidArgument, "name", 125},
                         {"part of the jail", [](auto request) { request.initWithout(1).set(0, "seatbelt"); },
                          ErrorCode::kInvalidArgument, "", 125},
                         {"what the backend cannot do", [](auto request) { request.getConfig().initWatchdog(); },
                          ErrorCode::kUnsupported, "watchdog", 125},
                         {"kernel", [](auto request) { request.getConfig().getBoot().getKernel().setPath("nosuch"); },
                          ErrorCode::kNotFound, "boot.kernel", 127},
                         {"worker", [](auto request) { request.getConfig().getBoot().setCmdline("fault=exit:create"); },
                          ErrorCode::kWorkerDied, "", 125}}) {
    SCOPED_TRACE(refused.what);
    Running running = launch("loop", "", refused.change);
    const Error error = failure(running.control->started());
    EXPECT_EQ(error.code(), refused.code) << error.message();
    EXPECT_EQ(error.field(), refused.field) << error.message();
    const auto outcome = await(io_, running.control->wait());
    EXPECT_EQ(outcome.getOutcome().getKind(), EndKind::START_FAILED);
    EXPECT_EQ(outcome.getOutcome().getExitCode(), refused.exitCode);
    EXPECT_EQ(outcome.getOutcome().getError().getMessage(), error.message());
    EXPECT_EQ(endOf(running), "exited with code " + std::to_string(refused.exitCode));
    expectNothingLeft(running, false);
  }
}

TEST_F(SupervisorTest, starterThatGoes_endsTheVm) {
  Running running = launchAndAwait("loop");
  const pid_t worker = await(io_, running.control->info()).getInfo().getWorkerPid();
  ASSERT_GT(worker, 0);
  EXPECT_EQ(endOf(running), "exited with code 125");
  expectNothingLeft(running, true);
  expectKind("clientGone");
  EXPECT_EQ(::kill(worker, 0), -1);
  EXPECT_EQ(errno, ESRCH);
}

TEST_F(SupervisorTest, starterThatGoesWhileTheVmIsMade_endsIt) {
  Running running = launch("loop", "fault=silent:create fault-deadline=create:600000");
  await(io_, running.control->console(0, false));  // there is a worker
  EXPECT_EQ(endOf(running), "exited with code 125");
  expectNothingLeft(running, true);
  expectKind("clientGone");
}

TEST_F(SupervisorTest, starterThatGoesAtOnce_leavesNothing) {
  Running running = launch("loop", "", [](schema::LaunchRequest::Builder request) { request.setRemoveOnEnd(true); });
  EXPECT_EQ(endOf(running), "exited with code 125");
  expectNothingLeft(running, false);
}

TEST_F(SupervisorTest, starterThatDetaches_leavesTheVmRunning) {
  Running running = launchAndAwait("loop");
  await(io_, running.control->detach());
  running.control.reset();
  auto other = connect();
  EXPECT_TRUE(await(io_, other->info()).getInfo().getDetached());
  EXPECT_EQ(failure(other->detach()).code(), ErrorCode::kFailedPrecondition);
  await(io_, other->stop(EndKind::STOPPED, ""));
  EXPECT_EQ(endOf(running), "exited with code 143");
  expectNothingLeft(running, true);
}

TEST_F(SupervisorTest, vmThatIsDetachedFromTheBeginning_hasNoLifeline) {
  Running running = launch("loop", "", [](schema::LaunchRequest::Builder request) { request.setDetached(true); });
  await(io_, running.control->console(0, false));  // it has its name
  running.control.reset();
  auto other = connect();
  await(io_, other->started());
  await(io_, other->stop(EndKind::STOPPED, ""));
  EXPECT_EQ(endOf(running), "exited with code 143");
}

TEST_F(SupervisorTest, signals_endTheVm_alsoWhileItIsMade) {
  for (const auto& [signal, code] : std::vector<std::pair<int, int>>{{SIGTERM, 143}, {SIGINT, 130}, {SIGHUP, 129}}) {
    for (const char* faults : {"", "fault=silent:create fault-deadline=create:600000"}) {
      SCOPED_TRACE(std::to_string(signal) + faults);
      Running running =
          launch("loop", faults, [](schema::LaunchRequest::Builder request) { request.setRemoveOnEnd(true); });
      await(io_, running.control->console(0, false));
      ASSERT_EQ(::kill(running.process->pid, signal), 0);
      const auto outcome = await(io_, running.control->wait());
      EXPECT_EQ(outcome.getOutcome().getKind(), EndKind::SIGNALLED);
      EXPECT_EQ(outcome.getOutcome().getExitCode(), code);
      EXPECT_EQ(endOf(running), "exited with code " + std::to_string(code));
      expectNothingLeft(running, false);
    }
  }
}

TEST_F(SupervisorTest, timeOfTheVm_isTheLaunchRequests) {
  Running running = launch("loop", "", [](schema::LaunchRequest::Builder request) { request.setTimeoutMs(20); });
  EXPECT_EQ(await(io_, running.control->wait()).getOutcome().getKind(), EndKind::TIMEOUT);
  EXPECT_EQ(endOf(running), "exited with code 124");
  expectKind("timeout");
}

TEST_F(SupervisorTest, workerThatDies_isToldAndKept) {
  Running running = launchAndAwait("loop", "fault=exit:9:pause");
  EXPECT_EQ(failure(running.control->pause()).code(), ErrorCode::kWorkerDied);
  const auto outcome = await(io_, running.control->wait());
  EXPECT_EQ(outcome.getOutcome().getKind(), EndKind::WORKER_DIED);
  EXPECT_EQ(outcome.getOutcome().getWorkerExit().getCode(), 9);
  EXPECT_EQ(endOf(running), "exited with code 1");
  expectNothingLeft(running, true);
  expectKind("workerDied");
}

TEST_F(SupervisorTest, supervisorThatIsKilled_leavesWhatTheNextCommandClearsAway) {
  Running running = launchAndAwait("loop");
  client::killSupervisor(*running.process);
  EXPECT_EQ(endOf(running), "was ended by signal 9 (Killed)");
  const std::vector<runtime::Entry> entries = runtime::list(directories(), runtime::Kind::kVm);
  ASSERT_EQ(entries.size(), 1u);
  EXPECT_FALSE(entries[0].alive);
  expectNothingLeft(running, true);
  expectKind("supervisorDied");
}

TEST_F(SupervisorTest, whatIsNoLaunchRequest_isRefusedBeforeAnythingIsDone) {
  const auto exitCodeWith = [&](Fd request) {
    const rpc::SocketPair sockets = rpc::makeSocketPair();
    const std::string program = (root_ / VMMHOST_LIBEXEC / "vmmhost-supervisor").string();
    const pid_t pid = ::fork();
    if (pid == 0) {
      const int control = ::fcntl(sockets.remote.get(), F_DUPFD, 10);
      const int file = request ? ::fcntl(request.get(), F_DUPFD, 10) : -1;
      const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
      ::dup2(null, STDERR_FILENO);
      ::close(client::kSupervisorRequestFd);
      ::dup2(control, client::kSupervisorControlFd);
      if (file >= 0) {
        ::dup2(file, client::kSupervisorRequestFd);
      }
      ::close_range(client::kSupervisorRequestFd + 1, ~0U, 0);
      ::execl(program.c_str(), program.c_str(), static_cast<char*>(nullptr));
      ::_exit(1);
    }
    client::LaunchedSupervisor started;
    started.pid = pid;
    started.process.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    return client::reapSupervisor(started, kPatienceMs);
  };
  EXPECT_EQ(exitCodeWith(Fd()), "exited with code 125");  // none at all
  Fd unsealed(::memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(unsealed.get(), 4096), 0);
  EXPECT_EQ(exitCodeWith(std::move(unsealed)), "exited with code 125");
  Fd garbage(::memfd_create("garbage", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  const std::string bytes(4096, '\xff');
  ASSERT_EQ(::write(garbage.get(), bytes.data(), bytes.size()), 4096);
  ASSERT_EQ(::fcntl(garbage.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE), 0);
  EXPECT_EQ(exitCodeWith(std::move(garbage)), "exited with code 125");
  EXPECT_FALSE(exists("run"));
}

}  // namespace
}  // namespace vmmhost::supervisor
