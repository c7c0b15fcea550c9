#include "vmmhost/mailbox.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

namespace vmmhost {
namespace {

TEST(Mailbox, postsOfOtherThreads_runInOrderOnTheLoop) {
  auto io = kj::setupAsyncIo();
  Mailbox mailbox(io.unixEventPort);
  auto done = kj::newPromiseAndFulfiller<void>();
  std::vector<int> seen;
  const auto loop = std::this_thread::get_id();
  std::thread other([&, sender = mailbox.sender()]() {
    for (int i = 0; i < 10000; ++i) {
      sender.post([&, i]() {
        EXPECT_EQ(std::this_thread::get_id(), loop);
        seen.push_back(i);
        if (i == 9999) {
          done.fulfiller->fulfill();
        }
      });
    }
  });
  done.promise.wait(io.waitScope);
  other.join();
  ASSERT_EQ(seen.size(), 10000u);
  for (int i = 0; i < 10000; ++i) {
    EXPECT_EQ(seen[i], i);
  }
}

TEST(Mailbox, postAfterItsEnd_isDropped) {
  auto io = kj::setupAsyncIo();
  auto mailbox = std::make_unique<Mailbox>(io.unixEventPort);
  const auto sender = mailbox->sender();
  const auto kept = std::make_shared<int>(0);
  mailbox->post([kept]() { FAIL() << "ran, which was waiting"; });
  EXPECT_EQ(kept.use_count(), 2);
  mailbox = nullptr;
  EXPECT_EQ(kept.use_count(), 1) << "what was waiting is dropped with it";
  sender.post([kept]() { FAIL() << "ran"; });
  EXPECT_EQ(kept.use_count(), 1) << "it is kept";
  io.provider->getTimer().afterDelay(1 * kj::MILLISECONDS).wait(io.waitScope);
}

}  // namespace
}  // namespace vmmhost
