#include "tests/hostile/flood/measure.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>

namespace vmmhost::hostile {
namespace {

using std::chrono::duration_cast;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr milliseconds kMemoryPeriod(5);
constexpr milliseconds kTimerPeriod(1);

// Of a thread, by its number.
nanoseconds waitedForCpu(pid_t thread) {
  std::ifstream file("/proc/" + std::to_string(thread) + "/schedstat");
  std::int64_t ran = 0;
  std::int64_t waited = 0;
  file >> ran >> waited;
  return nanoseconds(waited);
}

}  // namespace

std::uint64_t ownBytes(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps_rollup");
  file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  std::uint64_t total = 0;
  std::uint64_t kib = 0;
  std::string name;
  std::string unit;
  while (file >> name >> kib >> unit) {
    // Not pages of files: those of a program are shared while another runs it and private once it has ended, and dirty
    // while the disk does not have yet what was just linked.
    total += name == "Anonymous:" || name == "Pss_Shmem:" ? kib * 1024 : 0;
  }
  return total;
}

std::size_t openDescriptors(pid_t pid) {
  std::error_code ignored;
  const std::filesystem::directory_iterator folder("/proc/" + std::to_string(pid) + "/fd", ignored);
  return static_cast<std::size_t>(std::distance(begin(folder), end(folder)));
}

MemoryWatch::MemoryWatch(pid_t pid) : pid_(pid), first_(ownBytes(pid)), peak_(first_) {
  thread_ = std::thread([this] {
    while (!isOver_) {
      look();
      std::this_thread::sleep_for(kMemoryPeriod);
    }
  });
}

MemoryWatch::~MemoryWatch() {
  isOver_ = true;
  thread_.join();
}

void MemoryWatch::look() {
  peak_ = std::max<std::uint64_t>(peak_, ownBytes(pid_));
}

Lateness::Lateness(std::vector<pid_t> threads) : threads_(std::move(threads)) {
  threads_.push_back(::gettid());
  timer_ = std::thread([this] { runTimer(); });
}

Lateness::~Lateness() {
  isOver_ = true;
  timer_.join();
}

void Lateness::runTimer() {
  while (!isOver_) {
    const auto due = Clock::now() + kTimerPeriod;
    std::this_thread::sleep_until(due);
    const auto seen = Clock::now();
    const std::lock_guard lock(mutex_);
    late_.push_back({due, seen});
    if (late_.size() > 5000) {
      late_.pop_front();
    }
  }
}

nanoseconds Lateness::timerLateness(Clock::time_point begin, Clock::time_point end) {
  const std::lock_guard lock(mutex_);
  nanoseconds total{0};
  for (const Late& late : late_) {
    total += std::max(nanoseconds(0), std::min(end, late.seen) - std::max(begin, late.due));
  }
  return total;
}

Lateness::Moment Lateness::now() const {
  nanoseconds waited{0};
  for (const pid_t thread : threads_) {
    waited += waitedForCpu(thread);
  }
  return {Clock::now(), waited};
}

void Lateness::note(const Moment& before) {
  const Clock::time_point end = Clock::now();
  const nanoseconds waited = now().waited - before.waited;
  const nanoseconds timer = timerLateness(before.time, end);
  const nanoseconds total = end - before.time;
  const auto own = duration_cast<microseconds>(std::max(nanoseconds(0), total - std::max(waited, timer)));
  ++count_;
  if (own > worst_) {
    worst_ = own;
    worstText_ = std::to_string(duration_cast<microseconds>(total).count()) + " us, of which " +
                 std::to_string(duration_cast<microseconds>(waited).count()) +
                 " us were waited for a CPU; meanwhile a plain timer was " +
                 std::to_string(duration_cast<microseconds>(timer).count()) + " us late";
  }
}

std::string Lateness::text() const {
  return std::to_string(worst_.count()) + " us in the worst of " + std::to_string(count_) +
         " round trips: " + worstText_;
}

}  // namespace vmmhost::hostile
