#include "host/vm/abilities.h"

#include <gtest/gtest.h>
#include <kj/timer.h>

#include <algorithm>
#include <memory>
#include <string>

#include "ipc/rpc/answer.h"
#include "ipc/rpc/connection.h"

namespace vmmhost::vm {
namespace {

using schema::BalloonControl;
using schema::Pausable;

// A worker's abilities, in this process.
struct Worker {
  unsigned paused = 0;
  std::uint64_t target = 0;
  bool refuses = false;
  bool isSilent = false;
};

class WorkerPausable final : public Pausable::Server {
 public:
  explicit WorkerPausable(Worker& worker) : worker_(worker) {}
  kj::Promise<void> pause(PauseContext context) override {
    if (worker_.isSilent) {
      return kj::NEVER_DONE;
    }
    return rpc::answer(context, [this]() {
      ++worker_.paused;
      if (worker_.refuses) {
        throw Error(ErrorCode::kInternal, "it does not want to", "ask again", true);
      }
    });
  }

 private:
  Worker& worker_;
};

class WorkerBalloon final : public BalloonControl::Server {
 public:
  explicit WorkerBalloon(Worker& worker) : worker_(worker) {}
  kj::Promise<void> setTarget(SetTargetContext context) override {
    worker_.target = context.getParams().getBytes();
    return kj::READY_NOW;
  }
  kj::Promise<void> actual(ActualContext context) override {
    context.getResults().setBytes(worker_.target * 2);
    return kj::READY_NOW;
  }

 private:
  Worker& worker_;
};

class WorkerVsock final : public schema::VsockDevice::Server {};

class AbilitiesTest : public ::testing::Test, public AbilityOwner {
 protected:
  ~AbilitiesTest() noexcept override = default;

  void requireAnswering(const std::string& verb) const override {
    if (!isRunning) {
      throw Error(ErrorCode::kFailedPrecondition, "cannot " + verb + " a VM that is not running");
    }
  }
  bool isEnding() const override { return hasEnded; }
  const std::string& backend() const override { return name; }
  kj::Timer& timer() override { return clock; }
  kj::Promise<Error> explain(kj::Exception exception) override {
    const Error error = rpc::fromKj(exception);
    return Error(error.code(), "explained: " + error.message(), error.hint(), error.retryable());
  }

  void offer(bool withBalloon = true) {
    auto all = message.initRoot<schema::Abilities>();
    all.setPausable(kj::heap<WorkerPausable>(worker));
    if (withBalloon) {
      all.setBalloon(kj::heap<WorkerBalloon>(worker));
    }
    abilities->take(all.asReader());
  }
  // What a client gets, and what it does with it.
  schema::Abilities::Reader handedOut() {
    auto all = out.initRoot<schema::Abilities>();
    abilities->handOut(all);
    return all.asReader();
  }
  template <typename Call>
  Error errorOf(Call call) {
    const auto response = call.send().wait(io.waitScope);
    return response.hasError() ? rpc::readError(response.getError()) : Error(ErrorCode::kUnknown, "none");
  }

  kj::AsyncIoContext io = kj::setupAsyncIo();
  kj::TimerImpl clock{kj::origin<kj::TimePoint>()};
  std::string name = "good";
  bool isRunning = true;
  bool hasEnded = false;
  Worker worker;
  capnp::MallocMessageBuilder message, out;
  std::unique_ptr<Abilities> abilities = std::make_unique<Abilities>(*this);
};

TEST_F(AbilitiesTest, thoseOfTheWorker_areShownByTheTable_andNoOthers) {
  EXPECT_TRUE(abilities->shown().empty());
  offer();
  ASSERT_EQ(abilities->shown().size(), 2U);
  EXPECT_STREQ(abilities->shown()[0], "pause");
  EXPECT_STREQ(abilities->shown()[1], "balloon");
  EXPECT_TRUE(abilities->has<Pausable>());
  EXPECT_FALSE(abilities->has<schema::Resettable>());
  EXPECT_TRUE(handedOut().hasPausable());
  EXPECT_FALSE(handedOut().hasResettable());
}

// Sockets are the host's own to hand over.
TEST_F(AbilitiesTest, vsock_isShownAndNotHandedOut) {
  message.initRoot<schema::Abilities>().setVsock(kj::heap<WorkerVsock>());
  abilities->take(message.getRoot<schema::Abilities>().asReader());
  ASSERT_EQ(abilities->shown().size(), 1U);
  EXPECT_STREQ(abilities->shown()[0], "vsock");
  EXPECT_FALSE(handedOut().hasVsock());
}

TEST_F(AbilitiesTest, callOfAClient_reachesTheWorker_andItsAnswerComesBack) {
  offer();
  EXPECT_EQ(errorOf(handedOut().getPausable().pauseRequest()).message(), "none");
  EXPECT_EQ(worker.paused, 1U);
  auto request = handedOut().getBalloon().setTargetRequest();
  request.setBytes(5);
  EXPECT_EQ(errorOf(kj::mv(request)).message(), "none");
  EXPECT_EQ(worker.target, 5U);
  EXPECT_EQ(handedOut().getBalloon().actualRequest().send().wait(io.waitScope).getBytes(), 10U);
}

TEST_F(AbilitiesTest, vmThatCannotBeAsked_refusesByVerb_andTheWorkerHearsNothing) {
  abilities->rule<Pausable, Pausable::PauseParams, Pausable::PauseResults>("pause", {"freeze", "freezing", {}, {}});
  offer();
  auto client = handedOut().getPausable();
  isRunning = false;
  const Error error = errorOf(client.pauseRequest());
  EXPECT_EQ(error.code(), ErrorCode::kFailedPrecondition);
  EXPECT_EQ(error.message(), "cannot freeze a VM that is not running");
  EXPECT_EQ(worker.paused, 0U);
  // A method without a rule goes by its own name.
  EXPECT_EQ(errorOf(handedOut().getBalloon().actualRequest()).message(), "cannot actual a VM that is not running");
}

TEST_F(AbilitiesTest, errorOfTheWorker_arrivesWhole) {
  offer();
  worker.refuses = true;
  const Error error = errorOf(handedOut().getPausable().pauseRequest());
  EXPECT_EQ(error.code(), ErrorCode::kInternal);
  EXPECT_EQ(error.message(), "explained: it does not want to");
  EXPECT_EQ(error.hint(), "ask again");
  EXPECT_TRUE(error.retryable());
}

TEST_F(AbilitiesTest, methodThatTheWorkerDoesNotHave_isUnsupported) {
  offer();
  EXPECT_EQ(errorOf(handedOut().getPausable().resumeRequest()).code(), ErrorCode::kUnsupported);
}

TEST_F(AbilitiesTest, workerThatDoesNotAnswer_isNamedWhenItsTimeIsOver) {
  abilities->rule<Pausable, Pausable::PauseParams, Pausable::PauseResults>("pause",
                                                                           {"pause", "pausing the VM", {}, {}});
  offer();
  worker.isSilent = true;
  auto answered = handedOut().getPausable().pauseRequest().send();
  EXPECT_FALSE(answered.poll(io.waitScope));
  clock.advanceTo(clock.now() + 11 * kj::SECONDS);
  ASSERT_TRUE(answered.poll(io.waitScope));
  const auto response = answered.wait(io.waitScope);
  ASSERT_TRUE(response.hasError());
  const Error error = rpc::readError(response.getError());
  EXPECT_EQ(error.code(), ErrorCode::kDeadlineExceeded);
  EXPECT_NE(error.message().find("pausing the VM took longer"), std::string::npos) << error.message();
}

TEST_F(AbilitiesTest, checks_keepFromTheWorker_whatItIsNotToHear) {
  abilities->rule<BalloonControl, BalloonControl::SetTargetParams, BalloonControl::SetTargetResults>(
      "setTarget", {"balloon",
                    "setting",
                    [](auto params) {
                      if (params.getBytes() > 100) {
                        throw Error(ErrorCode::kInvalidArgument, "too much");
                      }
                    },
                    {}});
  offer();
  auto request = handedOut().getBalloon().setTargetRequest();
  request.setBytes(101);
  EXPECT_EQ(errorOf(kj::mv(request)).code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(worker.target, 0U);
}

TEST_F(AbilitiesTest, answers_changeTheVm_unlessItsEndHasBegun) {
  unsigned told = 0;
  abilities->rule<BalloonControl, BalloonControl::ActualParams, BalloonControl::ActualResults>(
      "actual", {"balloon", "asking", {}, [&](auto, auto results) {
                   ++told;
                   results.setBytes(std::min<std::uint64_t>(results.getBytes(), 7));
                 }});
  offer();
  worker.target = 50;
  EXPECT_EQ(handedOut().getBalloon().actualRequest().send().wait(io.waitScope).getBytes(), 7U);
  hasEnded = true;
  handedOut().getBalloon().actualRequest().send().wait(io.waitScope);
  EXPECT_EQ(told, 1U);
}

TEST_F(AbilitiesTest, whatThereIsNot_isUnsupportedInTheWordsOfItsName) {
  abilities->name<BalloonControl>("has no balloon", "give it one");
  offer(false);
  const auto refused = [&](auto get) {
    try {
      get();
    } catch (const Error& error) {
      return error;
    }
    return Error(ErrorCode::kUnknown, "none");
  };
  const Error named = refused([&] { abilities->get<BalloonControl>("balloon"); });
  EXPECT_EQ(named.code(), ErrorCode::kUnsupported);
  EXPECT_EQ(named.message(), "balloon: backend good has no balloon");
  EXPECT_EQ(named.hint(), "give it one");
  EXPECT_EQ(refused([&] { abilities->get<schema::Resettable>("reset"); }).code(), ErrorCode::kUnsupported);
  isRunning = false;
  EXPECT_EQ(refused([&] { abilities->get<BalloonControl>("balloon"); }).code(), ErrorCode::kFailedPrecondition);
}

TEST_F(AbilitiesTest, objectThatOutlivesTheVm_saysSo) {
  offer();
  auto client = handedOut().getPausable();
  abilities.reset();
  const Error error = errorOf(client.pauseRequest());
  EXPECT_EQ(error.code(), ErrorCode::kFailedPrecondition);
  EXPECT_EQ(error.message(), "the VM has ended");
  EXPECT_EQ(worker.paused, 0U);
}

// One row of the table stands for each object that a worker can have.
TEST(AbilityTable, namesEachFieldOfAbilities) {
  for (const auto field : capnp::Schema::from<schema::Abilities>().getFields()) {
    const std::string name = field.getProto().getName().cStr();
    const bool isThere =
        std::any_of(plugin::kAbilities.begin(), plugin::kAbilities.end(), [&](const plugin::Ability& ability) {
          return ability.field != nullptr && name == ability.field && ability.shown != nullptr;
        });
    EXPECT_EQ(isThere, name != "snapshots") << name;  // no backend has them yet
  }
}

}  // namespace
}  // namespace vmmhost::vm
