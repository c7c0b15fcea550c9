// The life of a VM: its states, what can be asked of it in each, its consoles.
#include "host/vm/vm.h"

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "host/vm/test_vm.h"

namespace vmmhost::vm {
namespace {

using namespace testing;

// All that can be asked of a VM that runs, and is refused of one that does not.
std::vector<std::pair<std::string, std::function<kj::Promise<void>(Vm&)>>> verbs() {
  return {{"pause", [](Vm& vm) { return vm.abilities().pause(); }},
          {"resume", [](Vm& vm) { return vm.abilities().resume(); }},
          {"shutdown", [](Vm& vm) { return vm.abilities().shutdown(); }},
          {"reset", [](Vm& vm) { return vm.abilities().reset(); }},
          {"balloon", [](Vm& vm) { return vm.abilities().setBalloon(0); }},
          {"balloon", [](Vm& vm) { return vm.abilities().balloon().ignoreResult(); }},
          {"connect to the guest of", [](Vm& vm) -> kj::Promise<void> {
             vm.connectVsock(1);
             return kj::READY_NOW;
           }}};
}

class VmLifeTest : public VmTest {
 protected:
  void expectAllRefused(const std::string& state) {
    for (const auto& [name, verb] : verbs()) {
      const Error error = errorOf([this, verb = verb]() { return verb(*vm_); });
      EXPECT_EQ(error.code(), ErrorCode::kFailedPrecondition) << name;
      EXPECT_EQ(error.message(), "cannot " + name + " a VM that is " + state);
    }
  }
};

TEST_F(VmLifeTest, states_areToldInOrderAndOnce) {
  Vm& vm = run("loop");
  EXPECT_EQ(states_, (std::vector{VmState::CREATED, VmState::RUNNING}));
  expectOk([&]() { return vm.abilities().pause(); });
  EXPECT_EQ(vm.life().state(), VmState::PAUSED);
  expectOk([&]() { return vm.abilities().pause(); });  // it is as it is wanted
  expectOk([&]() { return vm.abilities().reset(); });
  EXPECT_EQ(vm.life().state(), VmState::PAUSED);
  expectOk([&]() { return vm.abilities().resume(); });
  expectOk([&]() { return vm.abilities().resume(); });
  EXPECT_EQ(vm.life().state(), VmState::RUNNING);
  expectOk([&]() { return vm.stop(EndKind::STOPPED, "enough"); });
  EXPECT_EQ(states_, (std::vector{VmState::CREATED, VmState::RUNNING, VmState::PAUSED, VmState::RUNNING,
                                  VmState::STOPPING, VmState::ENDED}));
  EXPECT_EQ(vm.outcome().detail, "enough");
}

TEST_F(VmLifeTest, whoWatchesNoMore_isToldNothing_andMayStopWhenItIsTold) {
  Vm& vm = make("loop");
  unsigned told = 0;
  std::unique_ptr<Life::Watch> own;
  own = vm.life().watch([&](VmState, std::int64_t, const std::string&) {
    ++told;
    own.reset();
  });
  vm.start().wait(io_.waitScope);
  watch_.reset();
  EXPECT_EQ(told, 1u);
  EXPECT_EQ(states_.size(), 2u);
  expectOk([&]() { return vm.stop(EndKind::STOPPED, ""); });
  EXPECT_EQ(told, 1u);
  EXPECT_EQ(states_.size(), 2u);
}

TEST_F(VmLifeTest, vmThatIsPrepared_refusesWhatNeedsAGuest_byItsState) {
  make("loop");
  expectAllRefused("being prepared");
  EXPECT_EQ(errorOf([this]() { return vm_->consoles().attach(0, 0, true); }).message(),
            "the VM is being prepared: its console is not there");
}

TEST_F(VmLifeTest, vmThatIsCreated_refusesWhatNeedsAGuest) {
  Vm& vm = make("loop");
  std::vector<Error> errors;
  auto asks = vm.life().watch([&](VmState state, std::int64_t, const std::string&) {
    for (const auto& [name, verb] : verbs()) {
      if (state == VmState::CREATED) {
        try {
          verb(vm).detach([](kj::Exception&&) {});
        } catch (const Error& error) {
          errors.push_back(error);
        }
      }
    }
  });
  vm.start().wait(io_.waitScope);
  ASSERT_EQ(errors.size(), verbs().size());
  for (const Error& error : errors) {
    EXPECT_EQ(error.code(), ErrorCode::kFailedPrecondition);
    EXPECT_NE(error.message().find("a VM that is created"), std::string::npos) << error.message();
  }
}

TEST_F(VmLifeTest, vmThatStops_refusesWhatNeedsAGuest_asDoesOneThatHasEnded) {
  Vm& vm = run("loop");
  auto stopped = vm.stop(EndKind::STOPPED, "");
  EXPECT_EQ(vm.life().state(), VmState::STOPPING);
  for (const auto& [name, verb] : verbs()) {
    EXPECT_THROW(verb(vm), Error) << name;
  }
  stopped.wait(io_.waitScope);
  expectAllRefused("ended");
  EXPECT_EQ(errorOf([this]() { return vm_->consoles().attach(0, 0, true); }).message(),
            "the VM is ended: its console is not there");
}

TEST_F(VmLifeTest, objectsOfAVm_goThroughTheSameGate) {
  Vm& vm = run("loop");
  capnp::MallocMessageBuilder message;
  auto abilities = message.initRoot<schema::Abilities>();
  vm.abilities().handOut(abilities);
  ASSERT_TRUE(abilities.hasPausable());
  EXPECT_FALSE(abilities.hasVsock());
  EXPECT_FALSE(abilities.hasBalloon());
  auto pausable = abilities.getPausable();
  EXPECT_FALSE(pausable.pauseRequest().send().wait(io_.waitScope).hasError());
  EXPECT_EQ(vm.life().state(), VmState::PAUSED);
  expectOk([&]() { return vm.stop(EndKind::STOPPED, ""); });
  const auto refused = pausable.resumeRequest().send().wait(io_.waitScope);
  ASSERT_TRUE(refused.hasError());
  EXPECT_EQ(rpc::readError(refused.getError()).message(), "cannot resume a VM that is ended");
}

TEST_F(VmLifeTest, whatThisVmDoesNotHave_isUnsupportedByName) {
  Vm& vm = run("loop");
  const Error error = errorOf([&]() { return vm.abilities().setBalloon(1); });
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  EXPECT_EQ(error.message(), "balloon: backend fake has no balloon for this VM");
  EXPECT_FALSE(error.hint().empty());
  EXPECT_EQ(errorOf([&]() { return vm.connectVsock(1); }).message(), "the VM has no vsock device");
}

TEST_F(VmLifeTest, balloon_isBoundedByTheVmsMemory) {
  Vm& vm = run("loop", "", [](schema::VmConfig::Builder config, VmSpec&) { config.initBalloon(); });
  const Error error = errorOf([&]() { return vm.abilities().setBalloon((std::uint64_t{8} << 20) + 1); });
  EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  EXPECT_FALSE(error.hint().empty());
  expectOk([&]() { return vm.abilities().setBalloon(std::uint64_t{1} << 20); });
  const VmAbilities::Balloon state = vm.abilities().balloon().wait(io_.waitScope);
  EXPECT_EQ(state.target, std::uint64_t{1} << 20);
  EXPECT_EQ(state.actual, std::uint64_t{1} << 20);
}

TEST_F(VmLifeTest, errorOfTheWorker_arrivesWhole_andTheVmRunsOn) {
  Vm& vm = run("loop", "fault=error:pause");
  const Error error = errorOf([&]() { return vm.abilities().pause(); });
  EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
  EXPECT_EQ(error.message(), "the fake backend fails at pause");
  EXPECT_EQ(error.hint(), "leave fault=error out");
  EXPECT_TRUE(error.retryable());
  EXPECT_EQ(vm.life().state(), VmState::RUNNING);
}

TEST_F(VmLifeTest, consoles_areEachAStreamOfTheirOwn) {
  Vm& vm = run("serial_echo", "", [](schema::VmConfig::Builder config, VmSpec&) {
    config.initConsoles(3)[1].setKind(schema::Console::Kind::VIRTIO);
    config.getConsoles()[2].setKind(schema::Console::Kind::VIRTIO);
  });
  Stream first = attach(0);
  Stream second = attach(1);
  Stream third = attach(2);
  expectToRead(first, "echo ready\n");
  expectToRead(second, "console 1\n");
  expectToRead(third, "console 2\n");
  write(first, "one");
  write(second, "two");
  expectToRead(second, "two");
  expectToRead(first, "one");
  expectOk([&]() { return vm.abilities().resizeConsole(2, 80, 25); });
  expectToRead(third, "size 80x25\n");
  const Error noSuch = errorOf([&]() { return vm.consoles().attach(3, 0, true); });
  EXPECT_EQ(noSuch.code(), ErrorCode::kNotFound);
  EXPECT_EQ(noSuch.message(), "the VM has no console 3: it has 3, from 0 on");
  EXPECT_EQ(errorOf([&]() { return vm.abilities().resizeConsole(3, 80, 25); }).code(), ErrorCode::kNotFound);
  write(first, "\x04");
  EXPECT_EQ(readToTheEnd(first), "echo done\n");
  EXPECT_EQ(readToTheEnd(second), "");
  EXPECT_EQ(readToTheEnd(third), "");
  EXPECT_EQ(end().cause, EndCause::POWER_OFF);
}

TEST_F(VmLifeTest, whatIsTypedBeforeTheGuestRuns_comesToIt) {
  Vm& vm = make("serial_echo");
  auto started = vm.start().eagerlyEvaluate(nullptr);
  vm.consoles().onReady().wait(io_.waitScope);
  EXPECT_EQ(vm.life().state(), VmState::PREPARING);
  Stream console = attach();
  write(console, "early\x04");
  started.wait(io_.waitScope);
  EXPECT_EQ(readToTheEnd(console), "echo ready\nearlyecho done\n");
  EXPECT_EQ(end().cause, EndCause::POWER_OFF);
}

TEST_F(VmLifeTest, consoleOfAVmThatEnded_isKeptForWhoIsLate_ifAsked) {
  run("hello", "", [](schema::VmConfig::Builder, VmSpec& spec) { spec.keepConsole = true; });
  end();
  Stream late = attach();
  EXPECT_EQ(readToTheEnd(late), "hello from the guest\ngood bye\n");
  run("hello");
  end();
  EXPECT_THROW(vm_->consoles().attach(0, 0, true), Error);
}

TEST_F(VmLifeTest, consoleOfAVmThatNeverHadOne_isRefusedWithTheReason) {
  Vm& vm = make("loop", "", [](schema::VmConfig::Builder config, VmSpec&) {
    config.getBoot().getKernel().setPath("/nonexistent/kernel");
  });
  auto console = vm.consoles().onReady();
  const Error error = errorOf([&]() { return vm.start(); });
  EXPECT_EQ(error.code(), ErrorCode::kNotFound);
  EXPECT_NE(error.message().find("/nonexistent/kernel"), std::string::npos) << error.message();
  EXPECT_EQ(errorOf([&]() { return kj::mv(console); }).message(), "the VM ended before it had a console");
  EXPECT_EQ(vm.outcome().kind, EndKind::START_FAILED);
  EXPECT_EQ(vm.outcome().exitCode, 127);
  EXPECT_EQ(states_, (std::vector{VmState::STOPPING, VmState::ENDED}));
}

TEST_F(VmLifeTest, description_tellsWhatIsKnownInEachState) {
  capnp::MallocMessageBuilder first, second, third;
  auto info = first.initRoot<schema::VmInfo>();
  Vm& vm = make("loop");
  vm.describe(info);
  EXPECT_EQ(info.getState(), VmState::PREPARING);
  EXPECT_EQ(info.getWorkerPid(), 0);
  EXPECT_EQ(info.getAbilities().size(), 0u);
  EXPECT_FALSE(info.hasOutcome());
  vm.start().wait(io_.waitScope);
  info = second.initRoot<schema::VmInfo>();
  vm.describe(info, 4711);
  EXPECT_EQ(tests::children(), std::set<pid_t>{info.getWorkerPid()});
  EXPECT_EQ(info.getWorkerPrivateBytes(), 4711u);
  EXPECT_STREQ(info.getWorkerBuild().cStr(), "fake");
  EXPECT_GT(info.getJail().size(), 1u);
  EXPECT_GT(info.getAbilities().size(), 2u);
  EXPECT_EQ(std::string(info.getConfig().getBoot().getKernel().getPath().cStr()), tests::built("guests/loop.elf"));
  expectOk([&]() { return vm.stop(EndKind::STOPPED, ""); });
  info = third.initRoot<schema::VmInfo>();
  vm.describe(info, 4711);
  EXPECT_EQ(info.getState(), VmState::ENDED);
  EXPECT_EQ(info.getWorkerPid(), 0);
  EXPECT_EQ(info.getWorkerPrivateBytes(), 0u);
  ASSERT_TRUE(info.hasOutcome());
  EXPECT_EQ(info.getOutcome().getExitCode(), 143);
  EXPECT_GE(info.getEndedUnixMs(), info.getStartedUnixMs());
}

}  // namespace
}  // namespace vmmhost::vm
