// How a VM ends: by its guest, by its worker's fault, by others and when; once, and without leaving anything.
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <string>
#include <vector>

#include "host/vm/test_vm.h"
#include "host/vm/vm.h"

namespace vmmhost::vm {
namespace {

using namespace testing;

const std::vector<VmState> kNeverRan = {VmState::STOPPING, VmState::ENDED};
const std::vector<VmState> kRan = {VmState::CREATED, VmState::RUNNING, VmState::STOPPING, VmState::ENDED};

class VmEndTest : public VmTest {
 protected:
  void expectStopped(const std::vector<VmState>& states) {
    EXPECT_EQ(end().kind, EndKind::STOPPED);
    EXPECT_EQ(vm_->outcome().detail, "by a test");
    EXPECT_EQ(vm_->outcome().exitCode, 143);
    EXPECT_FALSE(vm_->outcome().error);
    EXPECT_EQ(states_, states);
    EXPECT_EQ(log().find("confinement"), std::string::npos) << log();
  }
  kj::Promise<void> stop() { return vm_->stop(EndKind::STOPPED, "by a test"); }

  static std::set<int> sockets() {
    std::set<int> found;
    for (const int descriptor : descriptors()) {
      struct stat info = {};
      if (::fstat(descriptor, &info) == 0 && S_ISSOCK(info.st_mode)) {
        found.insert(descriptor);
      }
    }
    return found;
  }
};

TEST_F(VmEndTest, endOfTheGuest_isToldWithItsCause) {
  struct Case {
    const char* guest;
    EndCause cause;
    int exitCode;
  };
  for (const Case& expected : std::vector<Case>{{"poweroff", EndCause::POWER_OFF, 0},
                                                {"reset", EndCause::RESET, 3},
                                                {"triple_fault", EndCause::TRIPLE_FAULT, 1},
                                                {"internal_error", EndCause::CRASH, 1}}) {
    SCOPED_TRACE(expected.guest);
    run(expected.guest);
    const Outcome& outcome = end();
    EXPECT_EQ(outcome.kind, EndKind::GUEST);
    EXPECT_EQ(outcome.cause, expected.cause);
    EXPECT_EQ(outcome.exitCode, expected.exitCode);
    EXPECT_FALSE(outcome.workerExit);
    EXPECT_EQ(states_, kRan);
  }
}

TEST_F(VmEndTest, powerButton_letsTheGuestEnd_whenItRuns) {
  Vm& vm = run("loop");
  expectOk([&]() { return vm.abilities().pause(); });
  expectOk([&]() { return vm.abilities().shutdown(); });
  EXPECT_EQ(vm.life().state(), VmState::PAUSED);
  expectOk([&]() { return vm.abilities().resume(); });
  EXPECT_EQ(end().cause, EndCause::POWER_OFF);
}

TEST_F(VmEndTest, firstEnd_isTheOneThatCounts) {
  Vm& vm = run("loop");
  auto first = vm.stop(EndKind::SIGNALLED, "SIGINT", SIGINT);
  auto second = vm.stop(EndKind::CLIENT_GONE, "gone");
  EXPECT_EQ(vm.outcome().detail, "SIGINT");
  second.wait(io_.waitScope);
  first.wait(io_.waitScope);
  expectOk([&]() { return vm.stop(EndKind::STOPPED, "again"); });
  EXPECT_EQ(vm.outcome().kind, EndKind::SIGNALLED);
  EXPECT_EQ(vm.outcome().exitCode, 128 + SIGINT);
  EXPECT_EQ(states_, kRan);
}

TEST_F(VmEndTest, endsThatAWorkerTellsOf_countOnce) {
  run("loop", "fault=lie:order:running");
  EXPECT_EQ(end().cause, EndCause::PANIC);
  EXPECT_EQ(vm_->outcome().detail, "the first end");
  EXPECT_EQ(states_, kRan);
  run("poweroff", "fault=twice:after-ended");
  EXPECT_EQ(end().detail, "the guest powered off");
  EXPECT_EQ(states_, kRan);
}

TEST_F(VmEndTest, causeThatNobodyKnows_isUnknown) {
  run("loop", "fault=lie:cause:running");
  EXPECT_EQ(end().cause, EndCause::UNKNOWN);
  EXPECT_EQ(vm_->outcome().kind, EndKind::GUEST);
  EXPECT_EQ(vm_->outcome().exitCode, 1);
}

TEST_F(VmEndTest, workerThatDiesBeforeItsGuestRuns_isWhatStartTells) {
  for (const std::string moment : {"constructor", "before-hello", "hello", "confirm", "attach", "create", "start"}) {
    SCOPED_TRACE(moment);
    Vm& vm = make("loop", "fault=exit:" + moment);
    const Error error = errorOf([&]() { return vm.start(); });
    EXPECT_EQ(error.code(), ErrorCode::kWorkerDied);
    EXPECT_EQ(error.message(), "the worker exited with code 7");
    EXPECT_EQ(end().kind, EndKind::START_FAILED);
    EXPECT_EQ(vm.outcome().exitCode, 125);
    ASSERT_TRUE(vm.outcome().error);
    EXPECT_EQ(vm.outcome().error->message(), error.message());
    ASSERT_TRUE(vm.outcome().workerExit);
    EXPECT_EQ(vm.outcome().workerExit->value, 7);
    if (moment != "start") {
      EXPECT_EQ(states_, kNeverRan);
    }
  }
}

TEST_F(VmEndTest, workerThatDiesLater_isTheEnd_andWhatACallTells) {
  run("loop", "fault=exit:running");
  EXPECT_EQ(end().kind, EndKind::WORKER_DIED);
  EXPECT_EQ(vm_->outcome().exitCode, 1);
  EXPECT_EQ(states_, kRan);
  for (const char* moment : {"pause", "reset", "press"}) {
    SCOPED_TRACE(moment);
    Vm& vm = run("loop", std::string("fault=die:segv:") + moment);
    const Error error = errorOf([&]() {
      return moment == std::string("pause")   ? vm.abilities().pause()
             : moment == std::string("reset") ? vm.abilities().reset()
                                              : vm.abilities().shutdown();
    });
    EXPECT_EQ(error.code(), ErrorCode::kWorkerDied);
    EXPECT_EQ(error.message(), "the worker was ended by SIGSEGV");
    EXPECT_EQ(end().kind, EndKind::WORKER_DIED);
    ASSERT_TRUE(vm.outcome().workerExit);
    EXPECT_EQ(vm.outcome().workerExit->value, SIGSEGV);
  }
}

TEST_F(VmEndTest, workerThatIsKilledFromOutside_isTheEnd) {
  run("loop");
  ASSERT_EQ(::kill(workerPid(), SIGKILL), 0);
  EXPECT_EQ(end().kind, EndKind::WORKER_DIED);
  EXPECT_EQ(vm_->outcome().detail, "the worker was ended by SIGKILL");
}

TEST_F(VmEndTest, workerThatClosesItsSocketAndLives_isEnded) {
  run("loop", "fault=close:running");
  EXPECT_EQ(end().kind, EndKind::WORKER_DIED);
  EXPECT_NE(vm_->outcome().detail.find("closed its connection but did not end"), std::string::npos)
      << vm_->outcome().detail;
}

TEST_F(VmEndTest, refusalOfTheWorker_arrivesWhole) {
  for (const std::string moment : {"hello", "confirm", "attach", "create", "start"}) {
    SCOPED_TRACE(moment);
    Vm& vm = make("loop", "fault=error:" + moment);
    const Error error = errorOf([&]() { return vm.start(); });
    EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
    EXPECT_EQ(error.message(), "the fake backend fails at " + moment);
    EXPECT_EQ(error.hint(), "leave fault=error out");
    EXPECT_TRUE(error.retryable());
    ASSERT_TRUE(end().error);
    EXPECT_EQ(vm.outcome().error->hint(), error.hint());
    EXPECT_EQ(vm.outcome().kind, EndKind::START_FAILED);
  }
}

TEST_F(VmEndTest, workerThatDoesNotAnswer_hasADeadlineForEachPart) {
  struct Case {
    const char* faults;
    const char* message;
  };
  for (const Case& expected : std::vector<Case>{
           {"fault=silent:hello fault-deadline=hello:50", "the worker's hello took longer than 50 ms"},
           {"fault=silent:confirm fault-deadline=hello:200",
            "the worker's tightening of its jail took longer than 200 ms"},
           {"fault=silent:create fault-deadline=create:50", "creating the VM in the worker took longer than 50 ms"},
           {"fault=silent:start fault-deadline=create:50", "creating the VM in the worker took longer than 50 ms"}}) {
    SCOPED_TRACE(expected.faults);
    Vm& vm = make("loop", expected.faults);
    const Error error = errorOf([&]() { return vm.start(); });
    EXPECT_EQ(error.code(), ErrorCode::kDeadlineExceeded);
    if (std::string(expected.faults).find("confirm") == std::string::npos) {
      EXPECT_EQ(error.message(), expected.message);
    }
    EXPECT_EQ(end().kind, EndKind::START_FAILED);
  }
}

TEST_F(VmEndTest, timeOfTheVm_endsIt_whateverItDoes) {
  const auto limited = [](schema::VmConfig::Builder, VmSpec& spec) { spec.timeout = std::chrono::milliseconds(20); };
  for (const char* faults : {"fault=silent:hello fault-deadline=hello:600000",
                             "fault=silent:create fault-deadline=create:600000", "fault=silent:pause"}) {
    SCOPED_TRACE(faults);
    Vm& vm = make("loop", faults, limited);
    EXPECT_EQ(errorOf([&]() { return vm.start(); }).message(), "none");  // it has not failed: it was ended on purpose
    EXPECT_EQ(end().kind, EndKind::TIMEOUT);
    EXPECT_EQ(vm.outcome().exitCode, 124);
    EXPECT_EQ(vm.outcome().detail, "it had 20 ms");
  }
}

TEST_F(VmEndTest, timeOfAVmThatEndedBefore_changesNothing) {
  run("poweroff", "", [](schema::VmConfig::Builder, VmSpec& spec) { spec.timeout = std::chrono::hours(1); });
  EXPECT_EQ(end().kind, EndKind::GUEST);
}

TEST_F(VmEndTest, stopBeforeTheStart_startsNoWorker) {
  Vm& vm = make("loop");
  auto stopped = stop();
  expectOk([&]() { return vm.start(); });
  stopped.wait(io_.waitScope);
  expectStopped(kNeverRan);
  EXPECT_FALSE(isPast("worker-spawned"));
}

TEST_F(VmEndTest, startOfAVmThatHasEnded_startsNoWorker) {
  Vm& vm = make("loop");
  stop().wait(io_.waitScope);
  expectOk([&]() { return vm.start(); });
  expectStopped(kNeverRan);
  EXPECT_EQ(tests::children(), std::set<pid_t>());
}

TEST_F(VmEndTest, stopOfAVmThatIsBeingMade_waitsForNoAnswer) {
  struct Case {
    const char* moment;
    const char* behind;  // the phase after which it is the one that is waited for
  };
  for (const Case& silent : std::vector<Case>{{"hello", "worker-exec"},
                                              {"confirm", "verified"},
                                              {"attach", "confined"},
                                              {"create", "confined"},
                                              {"start", "verified-again"}}) {
    SCOPED_TRACE(silent.moment);
    Vm& vm = make(
        "loop", std::string("fault-deadline=hello:600000 fault-deadline=create:600000 fault=silent:") + silent.moment);
    auto started = vm.start().eagerlyEvaluate(nullptr);
    ASSERT_TRUE(becomes([&]() { return isPast(silent.behind); }));
    stop().wait(io_.waitScope);
    started.wait(io_.waitScope);
    expectStopped(silent.moment == std::string("start")
                      ? std::vector{VmState::CREATED, VmState::STOPPING, VmState::ENDED}
                      : kNeverRan);
  }
}

// The worker has created it, and its answer is in the socket when the stop comes.
TEST_F(VmEndTest, stopThatOvertakesCreate_isNotUndoneByIt) {
  const auto others = sockets();
  const auto ofThisVm = [&]() {
    std::vector<pollfd> found;
    for (const int socket : sockets()) {
      if (others.count(socket) == 0) {
        found.push_back({socket, POLLIN, 0});
      }
    }
    return found;
  };
  Vm& vm = make("loop", "fault=slow:1000:attach", [](schema::VmConfig::Builder config, VmSpec&) {
    config.initConsoles(2)[1].setKind(schema::Console::Kind::VIRTIO);
  });
  auto started = vm.start().eagerlyEvaluate(nullptr);
  vm.consoles().onReady().wait(io_.waitScope);
  Stream console = attach(1);
  expectToRead(console, "console 1\n");  // it is being created
  // The worker has answered all but one call when its ends of the consoles are its own: the socket to it, our ends of
  // two consoles, and both of this client are left. The last answer is that it has the first descriptor.
  ASSERT_TRUE(becomes([&]() { return ofThisVm().size() == 5; }));
  kj::Promise<void>(kj::NEVER_DONE).poll(io_.waitScope);
  std::vector<pollfd> ready = ofThisVm();
  ASSERT_EQ(vm.life().state(), VmState::PREPARING);
  ASSERT_GT(::poll(ready.data(), ready.size(), 30'000), 0);
  stop().wait(io_.waitScope);
  started.wait(io_.waitScope);
  expectStopped(kNeverRan);
}

// A worker may tell of an end before it has answered.
TEST_F(VmEndTest, endThatOvertakesCreate_isNotUndoneByIt) {
  const auto measured = [](schema::VmConfig::Builder, VmSpec& spec) { spec.measureMemory = std::chrono::seconds(30); };
  Vm& vm = make("loop", "fault=lie:cause:create", measured);
  expectOk([&]() { return vm.start(); });
  EXPECT_EQ(end().kind, EndKind::GUEST);
  EXPECT_EQ(states_, kNeverRan);
  EXPECT_FALSE(isPast("guest-runs"));
}

TEST_F(VmEndTest, stopAsTheVmIsCreated_keepsItsGuestFromRunning) {
  Vm& vm = make("hello", "", [](schema::VmConfig::Builder, VmSpec& spec) { spec.keepConsole = true; });
  auto stops = vm.life().watch([this](VmState state, std::int64_t, const std::string&) {
    if (state == VmState::CREATED) {
      stop().detach([](kj::Exception&&) {});
    }
  });
  vm.start().wait(io_.waitScope);
  expectStopped({VmState::CREATED, VmState::STOPPING, VmState::ENDED});
  Stream console = attach();
  EXPECT_EQ(readToTheEnd(console), "");
}

TEST_F(VmEndTest, stop_doesNotWaitForAMeasurement) {
  Vm& vm =
      run("loop", "", [](schema::VmConfig::Builder, VmSpec& spec) { spec.measureMemory = std::chrono::seconds(30); });
  expectOk([&]() { return stop(); });
  EXPECT_EQ(vm.outcome().workerPrivateBytes, 0u);
  run("poweroff", "", [](schema::VmConfig::Builder, VmSpec& spec) { spec.measureMemory = std::chrono::seconds(30); });
  EXPECT_GT(end().workerPrivateBytes, 0u);
}

TEST_F(VmEndTest, clientsOfTheConsole_areToldOfTheEnd) {
  run("loop");
  Stream one = attach();
  Stream other = attach();
  expectToRead(one, "looping\n");
  expectOk([this]() { return stop(); });
  EXPECT_EQ(readToTheEnd(one), "");
  EXPECT_EQ(readToTheEnd(other), "looping\n");
}

// The fixture looks at what is left each time.
TEST_F(VmEndTest, vmThatGoesInTheMidst_leavesNothing) {
  for (const char* phase : {"", "files-open", "worker-exec", "confined", "vm-created", "guest-runs"}) {
    SCOPED_TRACE(phase);
    Vm& vm = make("loop");
    auto started = vm.start().eagerlyEvaluate(nullptr);
    ASSERT_TRUE(becomes([&]() { return *phase == '\0' || isPast(phase); }));
    started = nullptr;
    letGo();
    EXPECT_EQ(tests::children(), std::set<pid_t>());
  }
  run("loop");
  stop().detach([](kj::Exception&&) {});
  letGo();
}

}  // namespace
}  // namespace vmmhost::vm
