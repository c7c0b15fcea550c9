// The thread of a device: waits for descriptors and carries out what is posted to it.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "vmmhost/fd.h"
#include "worker-kvm/confine/rules.h"
#include "worker-kvm/vm/thread.h"
#include "worker-kvm/vm/wake.h"

namespace vmmhost::kvm::io {

class EventThread {
 public:
  static constexpr std::size_t kReservedPosts = 32;

  // What happens when a watched descriptor is ready. On the thread; never throws.
  class Source {
   public:
    virtual ~Source() = default;
    virtual void ready(std::uint32_t events) noexcept = 0;  // EPOLLIN, ...
  };

  // Returns once the thread runs under its seccomp filter: the rules for waiting, locks and the heap, and `rules`,
  // which are the device's own. `name`: at most 15 bytes. Throws Error. Builds with sanitizers install no filter.
  EventThread(std::string name, confine::Rules rules);
  // Carries out what was posted before, then joins. Nothing is watched any more.
  ~EventThread();
  EventThread(const EventThread&) = delete;
  EventThread& operator=(const EventThread&) = delete;

  // From any thread: runs on the thread, in order. Never blocks. As long as fewer than kReservedPosts wait and `work`
  // captures no more than std::function holds in itself (two pointers), it takes no memory: so may the threads of
  // virtual CPUs, which cannot ask the kernel for any.
  void post(std::function<void()> work);
  // What post() writes to, for the filters of threads that call it.
  int wakeDescriptor() const noexcept { return wake_.descriptor(); }

  // From the thread itself, or before anything was posted. `source` outlives its watch. Throw nothing: what can fail
  // here is only what we do wrong. After unwatch, `source` is not called any more.
  void watch(int descriptor, std::uint32_t events, Source& source) noexcept;
  void change(int descriptor, std::uint32_t events, Source& source) noexcept;
  void unwatch(int descriptor, const Source& source) noexcept;

 private:
  static constexpr std::size_t kBatch = 16;

  void threadMain();
  void control(int operation, int descriptor, std::uint32_t events, Source* source) noexcept;
  bool runPosted() noexcept;  // false: the thread is to end

  Fd epoll_;
  vm::Wake wake_;
  std::array<epoll_event, kBatch> batch_{};
  std::size_t batchSize_ = 0;
  std::mutex mutex_;
  std::vector<std::function<void()>> posted_;
  std::vector<std::function<void()>> running_;
  bool ending_ = false;
  int startError_ = -1;  // -1: not started; else an errno value of the filter's installation
  std::unique_ptr<vm::Thread> thread_;
};

}  // namespace vmmhost::kvm::io
