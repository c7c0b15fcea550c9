#include "worker-kvm/io/event_thread.h"

#include <asm/unistd.h>

#include <cassert>
#include <cerrno>
#include <condition_variable>

#include "vmmhost/error.h"

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
  confine::append(rules, {
                             confine::callOn(__NR_epoll_wait, epoll), confine::callOn(__NR_epoll_pwait, epoll),
                             confine::callOn(__NR_epoll_ctl, epoll), confine::callOn(__NR_read, wake),
                             confine::callOn(__NR_write, wake),  // posts to itself
                         });
  return seccomp::compile({name, std::move(rules), {}});
}
#endif

}  // namespace

EventThread::EventThread(std::string name, [[maybe_unused]] confine::Rules rules) : epoll_(makeEpoll()) {
  posted_.reserve(kReservedPosts);
  running_.reserve(kReservedPosts);
  control(EPOLL_CTL_ADD, wake_.descriptor(), EPOLLIN, nullptr);
  std::vector<sock_filter> filter;
#ifndef VMMHOST_SANITIZED
  filter = makeFilter(name, std::move(rules), epoll_.get(), wake_.descriptor());
#endif
  std::mutex startMutex;
  std::condition_variable started;
  thread_ = std::make_unique<vm::Thread>(name, [this, &startMutex, &started, &filter]() {
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
                "the seccomp filter of thread " + name + " cannot be installed: errno " + std::to_string(error));
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

void EventThread::post(std::function<void()> work) {
  bool isFirst = false;
  {
    const std::lock_guard lock(mutex_);
    isFirst = posted_.empty();
    posted_.push_back(std::move(work));
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
  {
    const std::lock_guard lock(mutex_);
    running_.swap(posted_);
  }
  for (auto& work : running_) {
    work();
  }
  running_.clear();
  // What was posted meanwhile has signalled again: descriptors have their turn before it.
  const std::lock_guard lock(mutex_);
  return !ending_ || !posted_.empty();
}

void EventThread::threadMain() {
  while (true) {
    const int count = ::epoll_wait(epoll_.get(), batch_.data(), static_cast<int>(batch_.size()), -1);
    if (count < 0) {
      continue;  // EINTR
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
