#include "worker-kvm/virtio/device_thread.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <future>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "worker-kvm/io/call_job.h"

namespace vmmhost::kvm::virtio {
namespace {

constexpr auto kDeadline = std::chrono::seconds(60);

// Notes what it is called for, and is busy when a driver goes if it was told so.
class NotingServer final : public DeviceThread::Server {
 public:
  enum class Call { kStart, kStop, kStopped };

  void start(Activation activation) noexcept override {
    threads_.push_back(std::this_thread::get_id());
    features_.push_back(activation.features);
    note(Call::kStart);
  }
  bool stop() noexcept override {
    threads_.push_back(std::this_thread::get_id());
    note(Call::kStop);
    if (isBusy) {
      busy_.set_value();
    }
    return !isBusy;
  }
  void note(Call call) {
    const std::lock_guard lock(mutex_);
    calls_.push_back(call);
  }
  std::vector<Call> calls() {
    const std::lock_guard lock(mutex_);
    return calls_;
  }
  std::size_t count(Call call) {
    const std::lock_guard lock(mutex_);
    return static_cast<std::size_t>(std::count(calls_.begin(), calls_.end(), call));
  }
  void awaitBusy() { ASSERT_EQ(busy_.get_future().wait_for(kDeadline), std::future_status::ready); }

  std::atomic<bool> isBusy = false;
  // Once nothing is active.
  const std::vector<std::thread::id>& threads() const { return threads_; }
  const std::vector<std::uint64_t>& features() const { return features_; }

 private:
  std::mutex mutex_;
  std::vector<Call> calls_;
  std::vector<std::thread::id> threads_;
  std::vector<std::uint64_t> features_;
  std::promise<void> busy_;
};

using Call = NotingServer::Call;

Activation activationOf(std::uint64_t features) {
  Activation activation;
  activation.features = features;
  return activation;
}

// With a thread of its own, and on one that others share.
class DeviceThreadTest : public ::testing::TestWithParam<bool> {
 protected:
  DeviceThreadTest() {
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (GetParam()) {
      device_.emplace(server_, "own", confine::Rules{});
    } else {
      shared_.emplace("shared", confine::Rules{});
      device_.emplace(server_, *shared_);
    }
  }
  // The driver is begun when it returns.
  void activateAndWait(std::uint64_t features) {
    device_->activate(activationOf(features));
    io::runOn(device_->events(), [] {});
  }
  void deactivateAndWait() {
    std::promise<void> done;
    device_->deactivate([&done] { done.set_value(); });
    ASSERT_EQ(done.get_future().wait_for(kDeadline), std::future_status::ready);
  }
  // Keeps the thread from all else until it is let go.
  void hold() {
    std::promise<void> held;
    device_->events().post([this, &held] {
      held.set_value();
      go_.get_future().wait();
    });
    held.get_future().wait();
  }
  void letGo() { go_.set_value(); }

  NotingServer server_;
  std::optional<io::EventThread> shared_;
  std::promise<void> go_;
  std::optional<DeviceThread> device_;
};

TEST_P(DeviceThreadTest, drivers_areHandedOverAndTakenBackOnTheThread) {
  std::thread::id thread;
  io::runOn(device_->events(), [&thread] { thread = std::this_thread::get_id(); });
  activateAndWait(5);
  deactivateAndWait();
  activateAndWait(7);
  deactivateAndWait();
  EXPECT_EQ(server_.calls(), (std::vector{Call::kStart, Call::kStop, Call::kStart, Call::kStop}));
  EXPECT_EQ(server_.features(), (std::vector<std::uint64_t>{5, 7}));
  EXPECT_EQ(server_.threads(), std::vector(4, thread));
}

TEST_P(DeviceThreadTest, driverThatGoesBeforeTheThreadCame_isNotBegun) {
  hold();
  device_->activate(activationOf(5));
  std::promise<void> done;
  device_->deactivate([&done] { done.set_value(); });
  letGo();
  ASSERT_EQ(done.get_future().wait_for(kDeadline), std::future_status::ready);
  EXPECT_EQ(server_.calls(), std::vector<Call>{});
}

TEST_P(DeviceThreadTest, nextDriver_mayComeBeforeTheLastOnesDoneReturns) {
  activateAndWait(5);
  std::promise<void> isGone;
  std::promise<void> isNext;
  device_->deactivate([&] {
    isGone.set_value();
    isNext.get_future().wait();
  });
  isGone.get_future().wait();
  device_->activate(activationOf(7));
  isNext.set_value();
  io::runOn(device_->events(), [] {});
  deactivateAndWait();
  EXPECT_EQ(server_.features().back(), 7U);
}

TEST_P(DeviceThreadTest, whileTheServerIsBusy_theDriverIsNotToldThatItIsGone) {
  server_.isBusy = true;
  activateAndWait(5);
  std::promise<void> done;
  auto isDone = done.get_future();
  device_->deactivate([&done] { done.set_value(); });
  server_.awaitBusy();
  io::runOn(device_->events(), [] {});
  EXPECT_EQ(isDone.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  device_->events().post([this] { device_->stopped(); });
  ASSERT_EQ(isDone.wait_for(kDeadline), std::future_status::ready);
  EXPECT_EQ(server_.count(Call::kStop), 1U);
}

TEST_P(DeviceThreadTest, end_takesLeaveOfADriver_andWaitsForABusyServer) {
  server_.isBusy = true;
  activateAndWait(5);
  // As an operation that takes its time: looked for again and again.
  int turns = 0;
  io::CallJob turn([&] {
    if (server_.count(Call::kStop) == 0 || ++turns < 1000) {
      device_->events().post(turn);
    } else {
      server_.note(Call::kStopped);
      device_->stopped();
    }
  });
  device_->events().post(turn);
  device_->end();
  EXPECT_EQ(server_.calls(), (std::vector{Call::kStart, Call::kStop, Call::kStopped}));
  device_.reset();
}

TEST_P(DeviceThreadTest, end_ofADriverThatIsGoing_tellsItToo) {
  server_.isBusy = true;
  activateAndWait(5);
  bool isDone = false;
  device_->deactivate([&isDone] { isDone = true; });
  server_.awaitBusy();
  device_->events().post([this] { device_->stopped(); });
  device_->end();
  device_.reset();  // and its thread
  EXPECT_TRUE(isDone);
  EXPECT_EQ(server_.count(Call::kStop), 1U);
}

TEST_P(DeviceThreadTest, end_comesBehindWhatTheServerHadPosted) {
  std::atomic<bool> wasRun = false;
  io::CallJob posted([&wasRun] { wasRun = true; });
  hold();
  device_->events().post(posted);
  letGo();
  device_.reset();
  EXPECT_TRUE(wasRun);
}

INSTANTIATE_TEST_SUITE_P(, DeviceThreadTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "ownThread" : "sharedThread"; });

// What fails while a machine is made ends a device whose thread never came.
TEST(DeviceThread, threadThatDidNotStart_isNotWaitedFor) {
  NotingServer server;
  io::EventThread thread("shared");
  { const DeviceThread device(server, thread); }
  thread.giveUp();
  DeviceThread device(server, thread);
  device.activate(activationOf(5));
  bool isDone = false;
  device.deactivate([&isDone] { isDone = true; });
  EXPECT_TRUE(isDone);
  EXPECT_EQ(server.calls(), (std::vector{Call::kStart, Call::kStop}));
}

TEST(DeviceThread, lastOfSeveralCalls_isTheOneThatCounts) {
  int done = 0;
  const auto call = afterCalls(3, [&done] { ++done; });
  call();
  call();
  EXPECT_EQ(done, 0);
  const auto other = call;
  other();
  EXPECT_EQ(done, 1);
}

}  // namespace
}  // namespace vmmhost::kvm::virtio
