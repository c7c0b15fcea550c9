// Who may run: the agreement between the control thread and the threads of virtual CPUs.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>

#include "worker-kvm/threads/wake.h"

namespace vmmhost::kvm::vm {

enum class EndCause : std::uint8_t { kPowerOff, kReset, kTripleFault, kCrash, kPanic, kWatchdog };

// Why a virtual CPU cannot or may not go on. Filled without allocating memory.
struct EndReport {
  EndCause cause = EndCause::kCrash;
  std::uint32_t cpu = 0;
  std::array<char, 192> detail{};  // zero-terminated
};

class RunControl {
 public:
  // `wake` is signalled when a virtual CPU parks and when one ends the machine. Outlives this.
  explicit RunControl(const threads::Wake& wake) : wake_(wake) {}

  // Control thread. Threads that are under way notice a change of target when they are kicked.
  void run() { setTarget(Target::kRun); }
  void park() { setTarget(Target::kPark); }
  void exit() { setTarget(Target::kExit); }
  std::uint32_t parkedCount() const;
  std::optional<EndReport> ended() const;
  // Forgets an end, before a machine starts again.
  void clearEnd();

  // Threads of virtual CPUs.
  // Waits, counted as parked, until guest code may run; false: the thread is to return.
  bool waitToRun();
  bool mayRun() const noexcept { return mayRun_.load(); }
  // Only the first report counts. No virtual CPU may run afterwards.
  void end(const EndReport& report) noexcept;

 private:
  enum class Target : std::uint8_t { kPark, kRun, kExit };
  void setTarget(Target target);

  const threads::Wake& wake_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Target target_ = Target::kPark;
  std::uint32_t parked_ = 0;
  std::optional<EndReport> ended_;
  std::atomic<bool> mayRun_ = false;  // target_ == kRun and not ended
};

}  // namespace vmmhost::kvm::vm
