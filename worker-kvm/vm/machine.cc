#include "worker-kvm/vm/machine.h"

#include <string>
#include <utility>

#include "vmmhost/error.h"

namespace vmmhost::kvm::vm {

namespace {

// How long the end of a VM waits for the host to take the last output.
constexpr auto kFlushLimit = 2 * kj::SECONDS;

schema::EndCause toSchema(EndCause cause) {
  switch (cause) {
    case EndCause::kPowerOff:
      return schema::EndCause::POWER_OFF;
    case EndCause::kReset:
      return schema::EndCause::RESET;
    case EndCause::kTripleFault:
      return schema::EndCause::TRIPLE_FAULT;
    case EndCause::kPanic:
      return schema::EndCause::PANIC;
    case EndCause::kWatchdog:
      return schema::EndCause::WATCHDOG;
    case EndCause::kCrash:
      break;
  }
  return schema::EndCause::CRASH;
}

}  // namespace

KvmMachine::KvmMachine(Parts parts, worker::Events& events, kj::AsyncIoContext& io)
    : events_(events),
      timer_(io.provider->getTimer()),
      counters_(std::move(parts.counters)),
      machine_(std::move(parts.machine)),
      observer_(io.unixEventPort, machine_->wake().descriptor(), kj::UnixEventPort::FdObserver::OBSERVE_READ),
      console_(io.unixEventPort, timer_, std::move(parts.console), machine_->serial(), *counters_),
      resetsByWatchdog_(parts.resetsByWatchdog),
      watchTask_(watch().eagerlyEvaluate(nullptr)) {
}

KvmMachine::~KvmMachine() noexcept {
}

kj::Promise<void> KvmMachine::whenParked() {
  if (machine_->allParked()) {
    return kj::READY_NOW;
  }
  auto pair = kj::newPromiseAndFulfiller<void>();
  waitingForPark_.add(kj::mv(pair.fulfiller));
  return kj::mv(pair.promise);
}

kj::Promise<void> KvmMachine::start() {
  life_ = Life::kStarted;
  apply();
  return kj::READY_NOW;
}

kj::Promise<void> KvmMachine::pause() {
  requireAlive("pause");
  if (!paused_) {
    paused_ = true;
    counters_->add(counters::Cell::kPauses);
    apply();
  }
  return whenParked();
}

kj::Promise<void> KvmMachine::resume() {
  requireAlive("resume");
  if (paused_ && machine_->allParked()) {
    machine_->goOn();
  }
  paused_ = false;
  apply();
  return kj::READY_NOW;
}

kj::Promise<void> KvmMachine::reset() {
  requireAlive("reset");
  // No guest code runs until one is done: whoever asks meanwhile has the same.
  if (!isResetting_) {
    isResetting_ = true;
    apply();
    reset_ = whenParked()
                 .then([this]() { return whenQuiet(); })
                 .then([this]() { return whenLoaded(); })
                 .then([this]() { return restart(); })
                 .fork();
  }
  return reset_.addBranch();
}

kj::Promise<void> KvmMachine::pressPowerButton() {
  requireAlive("shutdown");
  if (isResetting_) {
    isPressed_ = true;  // the reset would make the machine forget it
  } else {
    machine_->pressPowerButton();
  }
  return kj::READY_NOW;
}

kj::Promise<void> KvmMachine::setBalloonTarget(std::uint64_t bytes) {
  requireAlive("balloon");
  controls().setBalloonTarget(bytes);
  return kj::READY_NOW;
}

kj::Promise<void> KvmMachine::resizeConsole(std::uint32_t console, std::uint16_t columns, std::uint16_t rows) {
  controls().resizeConsole(console, columns, rows);
  return kj::READY_NOW;
}

kj::Promise<void> KvmMachine::connectVsock(std::uint32_t port, Fd socket) {
  requireAlive("vsock");
  controls().connectVsock(port, std::move(socket));
  return kj::READY_NOW;
}

kj::Promise<void> KvmMachine::whenQuiet() {
  machine_->beginQuiet();
  if (machine_->devicesQuiet()) {
    return kj::READY_NOW;
  }
  auto pair = kj::newPromiseAndFulfiller<void>();
  waitingForQuiet_.add(kj::mv(pair.fulfiller));
  return kj::mv(pair.promise);
}

kj::Promise<void> KvmMachine::whenLoaded() {
  try {
    requireAlive("reset");
  } catch (const Error& error) {
    isResetting_ = false;
    return worker::fail(error);
  }
  try {
    machine_->beginLoad();
  } catch (const Error& error) {
    return failReset(error);
  }
  auto pair = kj::newPromiseAndFulfiller<void>();
  waitingForLoad_.add(kj::mv(pair.fulfiller));
  return kj::mv(pair.promise);
}

kj::Promise<void> KvmMachine::restart() {
  isResetting_ = false;
  try {
    requireAlive("reset");  // its end may have been waiting to be looked at
  } catch (const Error& error) {
    return worker::fail(error);
  }
  try {
    machine_->reset();
  } catch (const Error& error) {
    return failReset(error);
  }
  if (std::exchange(isPressed_, false)) {
    machine_->pressPowerButton();
  }
  counters_->add(counters::Cell::kResets);
  events_.resetDone();
  apply();
  return kj::READY_NOW;
}

kj::Promise<void> KvmMachine::failReset(const Error& error) {
  isResetting_ = false;
  life_ = Life::kEnded;
  events_.ended(schema::EndCause::WORKER_FAULT, "the VM could not be reset: " + error.message());
  return worker::fail(error);
}

kj::Promise<void> KvmMachine::watch() {
  // Asked for before the eventfd is read: an edge that comes in between is then not lost.
  auto readable = observer_.whenBecomesReadable();
  machine_->wake().drain();
  lookAtMachine();
  return readable.then([this]() { return watch(); });
}

void KvmMachine::lookAtMachine() {
  machine_->serveCalls();
  console_.pump();
  for (const BootPhase& phase : machine_->takeBootPhases()) {
    events_.bootPhase(phase.value, static_cast<std::uint64_t>(phase.monotonic.count()));
  }
  if (machine_->takeCrash()) {
    events_.guestPanicked("the guest's kernel crashed, and its crash kernel takes over");
  }
  for (const DeviceControls::Disk& disk : controls().disks) {
    if (disk.takeFull()) {
      events_.diskFull(disk.index);
    }
  }
  for (const std::string& fault : machine_->takeFaults()) {
    worker::log(worker::LogLevel::kWarning, fault);
  }
  if (!waitingForQuiet_.empty() && machine_->devicesQuiet()) {
    for (auto& waiting : waitingForQuiet_) {
      waiting->fulfill();
    }
    waitingForQuiet_.clear();
  }
  if (!waitingForLoad_.empty() && machine_->isLoaded()) {
    for (auto& waiting : waitingForLoad_) {
      waiting->fulfill();
    }
    waitingForLoad_.clear();
  }
  const auto end = machine_->ended();
  // A watchdog's timer runs until the machine is put back, which is the end of a reset.
  const bool isForgotten = isResetting_ && end && end->cause == EndCause::kWatchdog;
  if (life_ == Life::kStarted && end && !isForgotten) {
    if (end->cause != EndCause::kWatchdog || !resetsByWatchdog_) {
      life_ = Life::kEnding;
      apply();
    } else {
      worker::log(worker::LogLevel::kWarning, std::string("reset: ") + end->detail.data());
      watchdogTask_ = reset().eagerlyEvaluate([](auto&&) {
        // restart() has told the host.
      });
    }
  }
  if (machine_->allParked()) {
    if (paused_) {
      machine_->standStill();
    }
    for (auto& waiting : waitingForPark_) {
      waiting->fulfill();
    }
    waitingForPark_.clear();
    if (life_ == Life::kEnding) {
      reportEnd();
    }
  }
}

void KvmMachine::apply() {
  if (life_ != Life::kStarted || paused_ || isResetting_) {
    machine_->park();
    return;
  }
  machine_->run();
  // A resume overtook a pause: nobody is to wait for what was called off.
  for (auto& waiting : waitingForPark_) {
    waiting->fulfill();
  }
  waitingForPark_.clear();
}

void KvmMachine::reportEnd() {
  life_ = Life::kEnded;
  const EndReport report = *machine_->ended();
  std::string detail = machine_->describe(report);
  endTask_ = console_.flushed()
                 .exclusiveJoin(timer_.afterDelay(kFlushLimit))
                 .then([this, cause = toSchema(report.cause), detail = std::move(detail)]() mutable {
                   events_.ended(cause, std::move(detail));
                 })
                 .eagerlyEvaluate(nullptr);
}

void KvmMachine::requireAlive(const char* operation) const {
  if (life_ == Life::kEnding || life_ == Life::kEnded) {
    throw Error(ErrorCode::kFailedPrecondition, std::string(operation) + ": the VM has ended");
  }
}

}  // namespace vmmhost::kvm::vm
