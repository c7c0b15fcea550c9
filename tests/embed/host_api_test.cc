// vmmhost/host.h as a program uses it that must not be hurt by its guests.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <filesystem>
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
  const std::string disk = folder_ + "/disk";
  for (const bool isStopped : {true, false}) {
    std::ofstream(disk).close();
    std::filesystem::resize_file(disk, 1 << 20);
    {
      Host host(options_);
      std::string withDisk = config("loop");
      withDisk.insert(1, R"("disks":[{"file":")" + disk + R"("}],)");
      auto vm = host.start(withDisk, onUsableBackend()).get();
      std::filesystem::resize_file(disk, 3 << 20);
      if (isStopped) {
        vm->stop().get();
        EXPECT_EQ(std::filesystem::file_size(disk), 1u << 20) << "once it has ended";
      }
    }
    EXPECT_EQ(std::filesystem::file_size(disk), 1u << 20) << isStopped;
  }
  std::ifstream log(options_.logFile);
  const std::string said{std::istreambuf_iterator<char>(log), {}};
  const std::regex longer("3145728 bytes long");
  const std::string told = "disks[0]: " + disk + ": 3145728 bytes long at the VM's end, planned were 1048576: cut back";
  EXPECT_EQ(std::distance(std::sregex_iterator(said.begin(), said.end(), longer), std::sregex_iterator()), 2) << said;
  EXPECT_NE(said.find(told), std::string::npos) << said;
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
}

TEST_F(HostApiTest, backendsAreListed) {
  Host host(options_);
  const auto backends = host.backends(false);
  EXPECT_TRUE(std::any_of(backends.begin(), backends.end(), [](const auto& one) { return one.name == "qemu"; }));
}

}  // namespace
}  // namespace vmmhost
