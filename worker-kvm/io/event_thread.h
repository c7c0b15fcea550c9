// The thread of a device: waits for descriptors and carries out what is posted to it.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "vmmhost/fd.h"
#include "worker-kvm/confine/rules.h"
#include "worker-kvm/threads/thread.h"
#include "worker-kvm/threads/wake.h"

namespace vmmhost::kvm::io {

class EventThread {
 public:
  // What happens when a watched descriptor is ready. On the thread; never throws.
  class Source {
   public:
    virtual ~Source() = default;
    virtual void ready(std::uint32_t events) noexcept = 0;  // EPOLLIN, ...
  };

  // Work that is posted without memory: for the threads of virtual CPUs, which wait for no lock of the heap, and for
  // what is posted often. Made once; outlives what was posted of it.
  class Job {
   public:
    Job() = default;
    Job(const Job&) = delete;
    Job& operator=(const Job&) = delete;
    virtual ~Job() = default;
    virtual void run() noexcept = 0;  // on the thread

   private:
    friend class EventThread;
    Job* next_ = nullptr;  // of the thread that it was posted to, like the next one: under its lock
    bool isPosted_ = false;
  };

  // `name`: at most 15 bytes. The thread itself begins with start(): what is posted before waits. Throws Error.
  explicit EventThread(std::string name);
  // Returns once the thread runs under its seccomp filter: the rules for waiting, locks and the heap, and `rules`,
  // which are the device's own. Throws Error. Builds with sanitizers install no filter.
  void start(confine::Rules rules);
  // By the thread that starts it.
  bool isStarted() const noexcept { return thread_ != nullptr; }
  EventThread(std::string name, confine::Rules rules) : EventThread(std::move(name)) { start(std::move(rules)); }
  // There will be no thread: what was and is posted is carried out by who posts it, so that nobody waits for ever.
  void giveUp() noexcept;
  // Carries out what was posted before, then joins. Nothing is watched any more.
  ~EventThread();
  EventThread(const EventThread&) = delete;
  EventThread& operator=(const EventThread&) = delete;

  // From any thread: runs on the thread, in order. Never blocks. What is posted while it works waits until descriptors
  // had their turn: work may post itself without starving anybody.
  void post(std::function<void()> work);
  // The same without memory; behind the above when both wait. A job that waits to be run already stays where it is: it
  // runs once. A job belongs to one thread.
  void post(Job& job) noexcept;
  // Where posts are signalled, for the filters of threads that post.
  int wakeDescriptor() const noexcept { return wake_.descriptor(); }

  // From the thread itself, or before anything was posted. `source` outlives its watch. Throw nothing: what can fail
  // here is only what we do wrong. After unwatch, `source` is not called any more.
  void watch(int descriptor, std::uint32_t events, Source& source) noexcept;
  void change(int descriptor, std::uint32_t events, Source& source) noexcept;
  void unwatch(int descriptor, const Source& source) noexcept;

 private:
  static constexpr std::size_t kBatch = 16;

  [[gnu::hot]] void threadMain();
  void control(int operation, int descriptor, std::uint32_t events, Source* source) noexcept;
  bool runPosted() noexcept;  // false: the thread is to end
  void runJobs(Job* first) noexcept;

  std::string name_;
  Fd epoll_;
  threads::Wake wake_;
  std::array<epoll_event, kBatch> batch_{};
  std::size_t batchSize_ = 0;
  std::mutex mutex_;
  std::vector<std::function<void()>> posted_;
  std::vector<std::function<void()>> running_;
  Job* firstJob_ = nullptr;
  Job* lastJob_ = nullptr;
  bool ending_ = false;
  bool hasGivenUp_ = false;
  int startError_ = -1;  // -1: not started; else an errno value of the filter's installation
  std::unique_ptr<threads::Thread> thread_;
};

}  // namespace vmmhost::kvm::io
