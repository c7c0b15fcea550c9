#include "host/vm/aside.h"

#include <gtest/gtest.h>
#include <kj/async-io.h>
#include <sys/resource.h>

#include <atomic>
#include <memory>
#include <string>

namespace vmmhost::vm {
namespace {

class AsideTest : public ::testing::Test {
 public:
  ~AsideTest() noexcept override {}  // KJ's members may throw from theirs

 protected:
  kj::AsyncIoContext io_ = kj::setupAsyncIo();
};

TEST_F(AsideTest, loopGoesOn_untilTheResultIsThere) {
  std::atomic<bool> mayEnd = false;
  auto result = runAside<std::string>(io_.unixEventPort, [&mayEnd]() {
    mayEnd.wait(false);
    return std::string("done");
  });
  io_.provider->getTimer().afterDelay(1 * kj::MILLISECONDS).wait(io_.waitScope);
  EXPECT_FALSE(result.poll(io_.waitScope));
  mayEnd = true;
  mayEnd.notify_all();
  EXPECT_EQ(result.wait(io_.waitScope), "done");
}

TEST_F(AsideTest, errorOfTheWork_isThePromises) {
  auto result = runAside<int>(io_.unixEventPort, []() -> int { throw Error(ErrorCode::kNotFound, "nothing", "look"); });
  try {
    result.wait(io_.waitScope);
    FAIL() << "did not fail";
  } catch (const kj::Exception& exception) {
    EXPECT_EQ(rpc::fromKj(exception).code(), ErrorCode::kNotFound);
    EXPECT_EQ(rpc::fromKj(exception).hint(), "look");
  }
}

TEST_F(AsideTest, givenUp_isToldTheWork_andWaitedFor) {
  auto unwanted = std::make_shared<std::atomic<bool>>(false);
  bool hasEnded = false;
  {
    auto dropped = runAside<int>(
        io_.unixEventPort,
        [unwanted, &hasEnded]() {
          unwanted->wait(false);
          hasEnded = true;
          return 1;
        },
        [unwanted]() {
          unwanted->store(true);
          unwanted->notify_all();
        });
  }
  EXPECT_TRUE(hasEnded);
}

// As where a process has as many descriptors as it may have.
TEST_F(AsideTest, whereNothingIsLeft_theWorkIsDoneInPlace) {
  rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none = {0, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  bool isDone = false;
  auto result = runAside<int>(io_.unixEventPort, [&isDone]() {
    isDone = true;
    return 2;
  });
  EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_TRUE(isDone);
  EXPECT_EQ(result.wait(io_.waitScope), 2);
}

}  // namespace
}  // namespace vmmhost::vm
