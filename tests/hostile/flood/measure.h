// What a flood costs the process under it, seen from outside.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/hostile/flood/wire.h"

namespace vmmhost::hostile {

// The memory that a process has written, as /proc/PID/smaps_rollup tells it, in bytes; 0 when it is gone.
std::uint64_t ownBytes(pid_t pid);
std::size_t openDescriptors(pid_t pid);

// The most memory of its own that a process has while this lives, over what it had at first.
class MemoryWatch {
 public:
  explicit MemoryWatch(pid_t pid);
  ~MemoryWatch();
  MemoryWatch(const MemoryWatch&) = delete;
  MemoryWatch& operator=(const MemoryWatch&) = delete;
  std::uint64_t growth() const { return peak_ - first_; }

 private:
  void look();

  pid_t pid_;
  std::uint64_t first_;
  std::atomic<std::uint64_t> peak_;
  std::atomic<bool> isOver_{false};
  std::thread thread_;
};

// How long round trips through an event loop take of its own doing. So that a busy machine raises no alarm, the longer
// of two times is taken off each: that in which the threads on the way were ready and waited for a CPU (the second
// number of their schedstat), and that by which, meanwhile, a plain timer was late in a thread of its own, which shares
// nothing with that loop but the machine.
class Lateness {
 public:
  // `threads` are on the way besides the caller's.
  explicit Lateness(std::vector<pid_t> threads);
  ~Lateness();
  Lateness(const Lateness&) = delete;
  Lateness& operator=(const Lateness&) = delete;

  template <typename Call>
  void measure(Call call) {
    const Moment before = now();
    call();
    note(before);
  }
  std::chrono::microseconds worst() const { return worst_; }
  unsigned count() const { return count_; }
  std::string text() const;  // the worst round trip in its parts

 private:
  struct Moment {
    Clock::time_point time;
    std::chrono::nanoseconds waited;
  };
  struct Late {
    Clock::time_point due;
    Clock::time_point seen;
  };
  Moment now() const;
  void note(const Moment& before);
  void runTimer();
  std::chrono::nanoseconds timerLateness(Clock::time_point begin, Clock::time_point end);

  std::vector<pid_t> threads_;
  std::chrono::microseconds worst_{0};
  std::string worstText_;
  unsigned count_ = 0;
  std::mutex mutex_;
  std::deque<Late> late_;  // of the timer, where it was
  std::atomic<bool> isOver_{false};
  std::thread timer_;
};

}  // namespace vmmhost::hostile
