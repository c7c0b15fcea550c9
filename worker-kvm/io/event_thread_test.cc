#include "worker-kvm/io/event_thread.h"

#include <asm/unistd.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>

#include <atomic>
#include <future>

#include "worker-kvm/io/call_job.h"

namespace vmmhost::kvm::io {
namespace {

class CountingSource final : public EventThread::Source {
 public:
  explicit CountingSource(const threads::Wake& event) : event_(event) {}
  void ready(std::uint32_t) noexcept override {
    event_.drain();
    seen_.set_value();
  }
  std::future<void> seen() { return seen_.get_future(); }

 private:
  const threads::Wake& event_;
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
  const threads::Wake event;
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

class CountingJob final : public EventThread::Job {
 public:
  explicit CountingJob(std::function<void()> work) : work_(std::move(work)) {}
  void run() noexcept override { work_(); }

 private:
  std::function<void()> work_;
};

TEST_F(EventThreadTest, jobPostedTwiceBeforeItRuns_runsOnce_andCanBePostedAgain) {
  std::atomic<int> runs = 0;
  CountingJob job([&] { ++runs; });
  CountingJob other([&] { runs += 100; });
  std::promise<void> held;
  std::promise<void> go;
  EventThread thread("test", {});
  thread.post([&] {
    held.set_value();
    go.get_future().wait();
  });
  held.get_future().get();
  thread.post(job);
  thread.post(other);
  thread.post(job);
  go.set_value();
  const auto settle = [&] {
    std::promise<void> done;
    CountingJob last([&] { done.set_value(); });
    thread.post(last);
    done.get_future().get();
  };
  settle();
  EXPECT_EQ(runs, 101);
  thread.post(job);
  settle();
  EXPECT_EQ(runs, 102);
}

// Work that never ends must not keep descriptors from their turn, nor the thread from its end.
TEST_F(EventThreadTest, jobThatPostsItself_starvesNobody) {
  const threads::Wake event;
  CountingSource source(event);
  std::atomic<bool> isEnough = false;
  EventThread* poster = nullptr;
  CountingJob job([&] {
    if (!isEnough) {
      poster->post(job);
    }
  });
  EventThread thread("test", {confine::callOn(__NR_read, event.descriptor())});
  poster = &thread;
  thread.watch(event.descriptor(), EPOLLIN, source);
  thread.post(job);
  event.signal();
  EXPECT_EQ(source.seen().wait_for(std::chrono::seconds(10)), std::future_status::ready);
  isEnough = true;
}

TEST_F(EventThreadTest, threadThatHasNotStarted_isNotWaitedFor) {
  EventThread thread("test");
  int calls = 0;
  runOn(thread, [&calls] { ++calls; });
  EXPECT_EQ(calls, 1);
  thread.giveUp();
  runOn(thread, [&calls] { ++calls; });
  EXPECT_EQ(calls, 2);
}

#ifndef VMMHOST_SANITIZED
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
