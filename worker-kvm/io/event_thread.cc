#include "worker-kvm/io/event_thread.h"

#include <asm/unistd.h>

#include <cassert>
#include <cerrno>
#include <condition_variable>
#include <utility>

#include "vmmhost/error.h"
#include "worker-kvm/io/calls.h"

namespace vmmhost::kvm::io {

namespace {

Fd makeEpoll() {
  Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) {
    throw systemError("epoll_create1", errno);
  }
  return epoll;
}

#ifndef VMMHOST_SANITIZED
std::vector<sock_filter> makeFilter(const std::string& name, confine::Rules rules, int epoll, int wake) {
  confine::append(rules, confine::everyThread());
  confine::append(rules, confine::heap());
  // Waiting is allowed on any descriptor, since the kernel remembers what is allowed whatever the arguments, and runs
  // no filter for it: it is two of the five calls of a round trip over vsock. It tells which descriptors are ready, and
  // nothing more.
  confine::append(rules, {
                             confine::call(__NR_epoll_wait), confine::callOn(__NR_epoll_pwait, epoll),
                             confine::callOn(__NR_epoll_ctl, epoll), confine::callOn(__NR_read, wake),
                             confine::callOn(__NR_write, wake),  // posts to itself
                         });
  return seccomp::compile({name, std::move(rules), {}});
}
#endif

}  // namespace

EventThread::EventThread(std::string name) : name_(std::move(name)), epoll_(makeEpoll()) {
  control(EPOLL_CTL_ADD, wake_.descriptor(), EPOLLIN, nullptr);
}

void EventThread::start([[maybe_unused]] confine::Rules rules) {
  std::vector<sock_filter> filter;
#ifndef VMMHOST_SANITIZED
  filter = makeFilter(name_, std::move(rules), epoll_.get(), wake_.descriptor());
#endif
  std::mutex startMutex;
  std::condition_variable started;
  thread_ = std::make_unique<threads::Thread>(name_, [this, &startMutex, &started, &filter]() {
    const int error = filter.empty() ? 0 : seccomp::install(filter, false);
    {
      // Notified with the lock held: whoever waits ends with these two.
      const std::lock_guard lock(startMutex);
      startError_ = error;
      started.notify_one();
    }
    if (error == 0) {
      threadMain();
    }
  });
  {
    std::unique_lock lock(startMutex);
    started.wait(lock, [this] { return startError_ >= 0; });
  }
  if (startError_ != 0) {
    const int error = startError_;
    thread_.reset();
    throw Error(ErrorCode::kConfinement,
                "the seccomp filter of thread " + name_ + " cannot be installed: errno " + std::to_string(error));
  }
}

EventThread::~EventThread() {
  if (thread_) {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    wake_.signal();
    thread_.reset();
  }
}

void EventThread::giveUp() noexcept {
  {
    const std::lock_guard lock(mutex_);
    hasGivenUp_ = true;
  }
  runPosted();
}

void EventThread::post(std::function<void()> work) {
  bool isFirst = false;
  {
    std::unique_lock lock(mutex_);
    if (hasGivenUp_) {
      lock.unlock();
      work();
      return;
    }
    isFirst = posted_.empty() && firstJob_ == nullptr;
    posted_.push_back(std::move(work));
  }
  if (isFirst) {
    wake_.signal();
  }
}

void EventThread::post(Job& job) noexcept {
  bool isFirst = false;
  {
    std::unique_lock lock(mutex_);
    if (hasGivenUp_) {
      lock.unlock();
      job.run();
      return;
    }
    if (job.isPosted_) {
      return;
    }
    job.isPosted_ = true;
    isFirst = posted_.empty() && firstJob_ == nullptr;
    (firstJob_ == nullptr ? firstJob_ : lastJob_->next_) = &job;
    lastJob_ = &job;
  }
  if (isFirst) {
    wake_.signal();
  }
}

void EventThread::watch(int descriptor, std::uint32_t events, Source& source) noexcept {
  control(EPOLL_CTL_ADD, descriptor, events, &source);
}

void EventThread::change(int descriptor, std::uint32_t events, Source& source) noexcept {
  control(EPOLL_CTL_MOD, descriptor, events, &source);
}

void EventThread::unwatch(int descriptor, const Source& source) noexcept {
  control(EPOLL_CTL_DEL, descriptor, 0, nullptr);
  // What was reported together with what runs now.
  for (std::size_t i = 0; i < batchSize_; ++i) {
    if (batch_[i].data.ptr == &source) {
      batch_[i].events = 0;
    }
  }
}

void EventThread::control(int operation, int descriptor, std::uint32_t events, Source* source) noexcept {
  epoll_event event{};
  event.events = events;
  event.data.ptr = source;
  [[maybe_unused]] const int result = ::epoll_ctl(epoll_.get(), operation, descriptor, &event);
  assert(result == 0);
}

bool EventThread::runPosted() noexcept {
  wake_.drain();
  Job* job = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (posted_.empty() && firstJob_ == nullptr) {
      return !ending_;
    }
    running_.swap(posted_);
    job = std::exchange(firstJob_, nullptr);
  }
  for (auto& work : running_) {
    work();
  }
  running_.clear();
  runJobs(job);
  const std::lock_guard lock(mutex_);
  if (ending_ && posted_.empty() && firstJob_ == nullptr) {
    wake_.signal();  // the one for the end may have been drained above
  }
  return true;
}

void EventThread::runJobs(Job* first) noexcept {
  while (first != nullptr) {
    Job& job = *first;
    {
      const std::lock_guard lock(mutex_);
      first = std::exchange(job.next_, nullptr);
      job.isPosted_ = false;
    }
    job.run();  // may end the job's life
  }
}

void EventThread::threadMain() {
  while (true) {
    const long count = waitForEvents(epoll_.get(), batch_.data(), batch_.size());
    if (count < 0) {
      continue;  // -EINTR
    }
    batchSize_ = static_cast<std::size_t>(count);
    bool hasPosts = false;
    for (std::size_t i = 0; i < batchSize_; ++i) {
      auto* source = static_cast<Source*>(batch_[i].data.ptr);
      if (source == nullptr) {
        hasPosts = true;
      } else if (batch_[i].events != 0) {
        source->ready(batch_[i].events);
      }
    }
    batchSize_ = 0;
    if (hasPosts && !runPosted()) {
      return;
    }
  }
}

}  // namespace vmmhost::kvm::io
