#include "worker-kvm/threads/control_calls.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <thread>

namespace vmmhost::kvm::threads {
namespace {

void waitForWake(const Wake& wake) {
  pollfd event{wake.descriptor(), POLLIN, 0};
  ASSERT_EQ(::poll(&event, 1, 10000), 1);
  wake.drain();
}

TEST(ControlCallsTest, callOfAnotherThread_runsOnTheControlThread) {
  const Wake wake;
  ControlCalls calls(wake);
  std::thread::id ranOn;
  bool wasRun = false;
  std::thread other([&] { wasRun = calls.call([&] { ranOn = std::this_thread::get_id(); }); });
  waitForWake(wake);
  calls.runWaiting();
  other.join();
  EXPECT_TRUE(wasRun);
  EXPECT_EQ(ranOn, std::this_thread::get_id());
}

TEST(ControlCallsTest, controlThreadItself_runsAtOnce) {
  const Wake wake;
  ControlCalls calls(wake);
  bool ran = false;
  EXPECT_TRUE(calls.call([&] { ran = true; }));
  EXPECT_TRUE(ran);
}

TEST(ControlCallsTest, end_lets_waitersGoUnrun_andRefusesLaterOnes) {
  const Wake wake;
  ControlCalls calls(wake);
  bool wasRun = true;
  bool laterWasRun = true;
  std::thread other([&] {
    wasRun = calls.call([] { FAIL(); });
    laterWasRun = calls.call([] { FAIL(); });
  });
  waitForWake(wake);
  calls.end();
  other.join();
  EXPECT_FALSE(wasRun);
  EXPECT_FALSE(laterWasRun);
}

}  // namespace
}  // namespace vmmhost::kvm::threads
