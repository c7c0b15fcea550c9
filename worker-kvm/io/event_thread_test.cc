#include "worker-kvm/io/event_thread.h"

#include <asm/unistd.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>

#include <atomic>
#include <chrono>
#include <future>
#include <optional>

namespace vmmhost::kvm::io {
namespace {

class CountingSource final : public EventThread::Source {
 public:
  explicit CountingSource(const vm::Wake& event) : event_(event) {}
  void ready(std::uint32_t) noexcept override {
    event_.drain();
    seen_.set_value();
  }
  std::future<void> seen() { return seen_.get_future(); }

 private:
  const vm::Wake& event_;
  std::promise<void> seen_;
};

class EventThreadTest : public ::testing::Test {
 protected:
  EventThreadTest() { ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); }
};

TEST_F(EventThreadTest, posts_runInOrderOnOneThread_andBeforeTheEnd) {
  std::vector<int> order;
  {
    EventThread thread("test", {});
    for (int i = 0; i < 1000; ++i) {
      thread.post([&order, i] { order.push_back(i); });
    }
  }
  ASSERT_EQ(order.size(), 1000u);
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
  }
}

TEST_F(EventThreadTest, watchedDescriptor_isReported_untilItIsNot) {
  const vm::Wake event;
  CountingSource source(event);
  EventThread thread("test", {confine::callOn(__NR_read, event.descriptor())});
  thread.watch(event.descriptor(), EPOLLIN, source);
  event.signal();
  source.seen().get();
  std::promise<void> unwatched;
  thread.post([&] {
    thread.unwatch(event.descriptor(), source);
    unwatched.set_value();
  });
  unwatched.get_future().get();
  event.signal();
  std::promise<void> later;
  thread.post([&] { later.set_value(); });
  later.get_future().get();  // a second report would have thrown
}

// Posts itself again until told not to.
class Restless {
 public:
  explicit Restless(EventThread& thread) : thread_(thread) {
    thread_.post([this] { run(); });
  }
  void end() { ends_ = true; }

 private:
  void run() {
    if (!ends_) {
      thread_.post([this] { run(); });
    }
  }
  EventThread& thread_;
  std::atomic<bool> ends_ = false;
};

TEST_F(EventThreadTest, postsThatPost_keepNoDescriptorWaiting_andAreCarriedOutBeforeTheEnd) {
  const vm::Wake event;
  CountingSource source(event);
  std::optional<EventThread> thread(std::in_place, "test",
                                    confine::Rules{confine::callOn(__NR_read, event.descriptor())});
  thread->watch(event.descriptor(), EPOLLIN, source);
  Restless restless(*thread);
  auto seen = source.seen();
  event.signal();
  EXPECT_EQ(seen.wait_for(std::chrono::seconds(10)), std::future_status::ready);
  restless.end();
  std::atomic<int> last = 0;
  thread->post([&] {
    ++last;
    thread->post([&last] { ++last; });
  });
  thread.reset();
  EXPECT_EQ(last, 2);
}

#ifndef VMMHOST_SANITIZED
TEST_F(EventThreadTest, postsOfAThreadThatCannotHaveMemory_arrive) {
  EXPECT_EXIT(
      {
        EventThread thread("test", {});
        std::promise<void> blocking;
        auto blocked = blocking.get_future();
        std::promise<void> waiting;
        thread.post([&] {
          blocking.set_value();
          waiting.get_future().get();
        });
        blocked.get();
        std::atomic<std::size_t> carriedOut = 0;
        confine::Rules rules = confine::everyThread();
        confine::append(rules, {confine::callOn(__NR_write, thread.wakeDescriptor())});
        const auto filter = seccomp::compile({"test", rules, {}});
        {
          vm::Thread poor("poor", [&] {
            if (seccomp::install(filter, false) != 0) {
              ::_exit(1);
            }
            for (std::size_t i = 0; i < EventThread::kReservedPosts; ++i) {
              thread.post([&carriedOut] { ++carriedOut; });
            }
          });
        }
        waiting.set_value();
        std::promise<void> last;
        thread.post([&] { last.set_value(); });
        last.get_future().get();
        ::_exit(carriedOut == EventThread::kReservedPosts ? 0 : 2);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST_F(EventThreadTest, whatItsRulesLack_endsTheProcess) {
  EXPECT_EXIT(
      {
        EventThread thread("test", {});
        std::promise<void> never;
        thread.post([] { ::eventfd(0, 0); });
        never.get_future().get();
      },
      ::testing::KilledBySignal(SIGSYS), "");
}
#endif

}  // namespace
}  // namespace vmmhost::kvm::io
