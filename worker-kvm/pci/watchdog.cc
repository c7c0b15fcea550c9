#include "worker-kvm/pci/watchdog.h"

#include <asm/unistd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "vmmhost/error.h"
#include "worker-kvm/io/call_job.h"

namespace vmmhost::kvm::pci {

namespace {

// Configuration space (16.1): WDT configuration and lock registers.
constexpr std::size_t kConfigRegister = 0x60;
constexpr std::uint32_t kOutputDisabled = 1 << 5;
constexpr std::uint32_t kFast = 1 << 2;  // counts microseconds instead of milliseconds, nearly
constexpr std::size_t kLockRegister = 0x68;
constexpr std::uint32_t kLocked = 1 << 0;
constexpr std::uint32_t kEnabled = 1 << 1;

// Memory (16.2).
constexpr std::uint64_t kPreload1 = 0x00;
constexpr std::uint64_t kPreload2 = 0x04;
constexpr std::uint64_t kReload = 0x0c;
constexpr std::uint32_t kPreloadMask = 0xfffff;
constexpr std::uint32_t kReloadBit = 1 << 8;
constexpr std::uint32_t kTimeoutBit = 1 << 9;
constexpr std::uint32_t kUnlock1 = 0x80;
constexpr std::uint32_t kUnlock2 = 0x86;

constexpr std::uint64_t kClockHz = 33000000;  // PCI

}  // namespace

Watchdog::Watchdog(devices::MachineControl& machine, threads::ControlCalls& calls, io::EventThread& thread)
    : Function({.vendor = 0x8086, .device = 0x25ab, .classCode = 0x088000}),
      machine_(machine),
      calls_(calls),
      thread_(thread),
      timer_(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)),
      preload_{kPreloadMask, kPreloadMask} {
  if (!timer_) {
    throw systemError("timerfd_create", errno);
  }
  addBaseAddress(0, 16, *this);
  makeWritable(kConfigRegister, 0x3f, 2);
  makeWritable(kLockRegister, 0x07, 1);
  thread_.watch(timer_.get(), EPOLLIN, *this);
}

Watchdog::~Watchdog() {
  io::runOn(thread_, [this] { thread_.unwatch(timer_.get(), *this); });
}

confine::Rules Watchdog::rules() {
  return {confine::call(__NR_read), confine::call(__NR_timerfd_settime)};  // its timer is not made yet
}

void Watchdog::writeConfig(std::size_t offset, std::span<const std::uint8_t> data) noexcept {
  const std::lock_guard lock(mutex_);
  const std::uint32_t before = get(kLockRegister, 1);
  const bool touchesLock = offset <= kLockRegister && offset + data.size() > kLockRegister;
  if (touchesLock && (before & kLocked) != 0) {
    return;  // until the next reset of the machine
  }
  Function::writeConfig(offset, data);
  const std::uint32_t after = get(kLockRegister, 1);
  if ((after & kEnabled) != 0 && (before & kEnabled) == 0) {
    startStage(1);
  } else if ((after & kEnabled) == 0 && (before & kEnabled) != 0) {
    stop();
  }
}

void Watchdog::read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept {
  std::fill(data.begin(), data.end(), std::uint8_t{0});
  const std::lock_guard lock(mutex_);
  const std::uint32_t value = offset == kReload && hasTimedOut_ ? kTimeoutBit : 0;
  std::memcpy(data.data(), &value, std::min(data.size(), sizeof value));
}

void Watchdog::write(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept {
  std::uint32_t value = 0;
  std::memcpy(&value, data.data(), std::min(data.size(), sizeof value));
  const std::lock_guard lock(mutex_);
  if (offset == kReload && value == kUnlock1) {
    unlockStep_ = 1;
    return;
  }
  if (offset == kReload && value == kUnlock2 && unlockStep_ == 1) {
    unlockStep_ = 2;
    return;
  }
  if (unlockStep_ != 2) {
    return;
  }
  unlockStep_ = 0;
  if (offset == kPreload1 || offset == kPreload2) {
    preload_[offset == kPreload2 ? 1 : 0] = value & kPreloadMask;
  } else if (offset == kReload) {
    if ((value & kTimeoutBit) != 0) {
      hasTimedOut_ = false;
    }
    if ((value & kReloadBit) != 0 && stage_ != 0) {
      startStage(1);
    }
  }
}

// On the device's thread.
void Watchdog::ready(std::uint32_t) noexcept {
  std::uint64_t expirations = 0;
  if (::read(timer_.get(), &expirations, sizeof expirations) != sizeof expirations) {
    return;  // it was reloaded meanwhile
  }
  const std::lock_guard lock(mutex_);
  if (stage_ == 1) {
    // The first stage only warns, by an interrupt that drivers do not ask for (16.1.17).
    stage_ = 2;
    arm(timeOf(2));
  } else if (stage_ == 2) {
    stage_ = 0;
    hasTimedOut_ = true;
    if ((get(kConfigRegister, 2) & kOutputDisabled) == 0) {
      machine_.requestEnd(devices::EndReason::kWatchdog);
    }
  }
}

void Watchdog::setRunning(bool running) noexcept {
  const std::lock_guard lock(mutex_);
  if (running == isRunning_) {
    return;
  }
  isRunning_ = running;
  if (stage_ == 0) {
    return;
  }
  if (running) {
    arm(std::max(left_, std::chrono::nanoseconds(1)));
  } else {
    itimerspec before{};
    const itimerspec none{};
    ::timerfd_settime(timer_.get(), 0, &none, &before);
    left_ = std::chrono::seconds(before.it_value.tv_sec) + std::chrono::nanoseconds(before.it_value.tv_nsec);
  }
}

void Watchdog::reset() {
  const std::lock_guard lock(mutex_);
  stop();
  preload_[0] = preload_[1] = kPreloadMask;
  unlockStep_ = 0;
  hasTimedOut_ = false;
  Function::reset();
}

void Watchdog::startStage(unsigned stage) noexcept {
  stage_ = stage;
  calls_.call([this, stage] { arm(timeOf(stage)); });
}

void Watchdog::stop() noexcept {
  stage_ = 0;
  calls_.call([this] { arm(std::chrono::nanoseconds(0)); });
}

void Watchdog::arm(std::chrono::nanoseconds time) noexcept {
  itimerspec value{};
  value.it_value.tv_sec = static_cast<time_t>(time.count() / 1000000000);
  value.it_value.tv_nsec = static_cast<long>(time.count() % 1000000000);
  ::timerfd_settime(timer_.get(), 0, &value, nullptr);
}

std::chrono::nanoseconds Watchdog::timeOf(unsigned stage) const noexcept {
  // 16.1.15: the preload value counts the bits above the lowest 15, or 5, of a counter of PCI clocks.
  const unsigned shift = (get(kConfigRegister, 2) & kFast) != 0 ? 5 : 15;
  const std::uint64_t clocks = std::uint64_t{preload_[stage - 1]} << shift;
  return std::chrono::nanoseconds(std::max<std::uint64_t>(clocks * 1000 / (kClockHz / 1000000), 1));
}

}  // namespace vmmhost::kvm::pci
