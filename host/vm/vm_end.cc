// How a VM ends: what its worker tells or no longer tells, and what is cleared away.
#include <kj/debug.h>
#include <kj/vector.h>

#include "host/base/clock.h"
#include "host/base/text.h"
#include "host/vm/vm.h"

namespace vmmhost::vm {
namespace {

using schema::EndCause;
using schema::EndKind;
using schema::VmState;

constexpr auto kConsoleFlush = 2 * kj::SECONDS;
constexpr auto kLastEvent = 200 * kj::MILLISECONDS;

// Cloud Hypervisor's docs/debug-port.md gives two of the values a meaning.
std::string bootPhaseName(unsigned value) {
  switch (value) {
    case 0x40:
      return "guest-kernel";
    case 0x41:
      return "guest-init";
    default:
      return "boot-phase-" + std::to_string(value);
  }
}

}  // namespace

void Vm::watchWorker() {
  auto& timer = io_.provider->getTimer();
  // The process and its connection go together. Its last event may still be on its way when the process is gone, and
  // one that has closed its connection is of no use though it lives.
  auto& process = worker_->process();
  auto exited = process.onEnd().then(
      [&process, &timer]() { return process.onDisconnect().exclusiveJoin(timer.afterDelay(kLastEvent)); });
  workerWatch_ = process.onDisconnect()
                     .exclusiveJoin(kj::mv(exited))
                     .then([&process]() { return process.explain(KJ_EXCEPTION(DISCONNECTED, "the worker is gone")); })
                     .then([this](const Error& error) {
                       if (ending_ || state_ == VmState::PREPARING || state_ == VmState::CREATED) {
                         return;  // starting reports it itself
                       }
                       beginEnd(EndKind::WORKER_DIED, EndCause::UNKNOWN, error.message(), error);
                     })
                     .eagerlyEvaluate(nullptr);
}

kj::Duration Vm::noteEvent(schema::Event::Reader event) {
  constexpr kj::Duration kAtOnce = 0 * kj::NANOSECONDS;
  if (ending_) {
    return kAtOnce;  // an end is told once; whatever comes after it is of no interest
  }
  const kj::TimePoint now = io_.provider->getTimer().now();
  switch (event.which()) {
    case schema::Event::ENDED:
      noteEnd(event.getEnded());
      return kAtOnce;
    case schema::Event::RESET_DONE:
      resetLines_.write(now, "was reset");
      break;
    case schema::Event::GUEST_PANICKED:
      if (panicRate_.take(now) > kAtOnce) {
        beginEnd(EndKind::GUEST, EndCause::PANIC,
                 "the guest told of panics without end, more than " + std::to_string(EventRate::kBurst) +
                     " at a time and " + std::to_string(EventRate::kPerSecond) + " a second",
                 std::nullopt);
        return kAtOnce;
      }
      panicLines_.write(now, event.getGuestPanicked().cStr());
      break;
    case schema::Event::DISK_FULL:
      noteFullDisk(event.getDiskFull(), now);
      break;
    case schema::Event::BOOT_PHASE:
      if (timings_.size() < 64) {
        timings_.emplace_back(bootPhaseName(event.getBootPhase().getValue()), event.getBootPhase().getMonotonicNs());
      }
      break;
  }
  return eventRate_.take(now);
}

void Vm::noteEnd(schema::Event::Ended::Reader ended) {
  auto cause = ended.getCause();
  if (cause > EndCause::WORKER_FAULT) {
    cause = EndCause::UNKNOWN;
  }
  mark("guest-ended");
  if (state_ == VmState::CREATED) {
    setState(VmState::RUNNING);  // its end has overtaken the answer to start
  }
  beginEnd(EndKind::GUEST, cause, printable(std::string_view(ended.getDetail().cStr()), 4096), std::nullopt);
}

void Vm::noteFullDisk(std::uint32_t index, kj::TimePoint now) {
  const auto disks = originalConfig_.getDisks();
  if (index >= disks.size()) {
    return;  // a worker may say anything
  }
  fullDiskLines_.write(now, "disks[" + std::to_string(index) +
                                "]: " + printable(disks[index].getFile().getPath().cStr(), 1024) +
                                ": its file system is full: the guest gets errors for what it writes");
}

void Vm::blameForEvents() {
  beginEnd(EndKind::WORKER_DIED, EndCause::WORKER_FAULT, "the worker sent more events than any VM needs",
           Error(ErrorCode::kProtocol, "the worker sent more events than " + std::to_string(EventRate::kBurst) +
                                           " at a time and " + std::to_string(EventRate::kPerSecond) +
                                           " a second, and did not wait for the answers"));
}

void Vm::beginEnd(EndKind kind, EndCause cause, std::string detail, std::optional<Error> error, int signal) {
  if (std::exchange(ending_, true)) {
    return;
  }
  bootFilesUnwanted_->store(true);
  outcome_.kind = kind;
  outcome_.cause = cause;
  outcome_.detail = std::move(detail);
  outcome_.exitCode = exitCodeFor(kind, cause, error, signal);
  outcome_.error = std::move(error);
  // Of no effect when there was one.
  consoleFulfiller_->reject(rpc::toKj(Error(ErrorCode::kFailedPrecondition, "the VM ended before it had a console")));
  setState(VmState::STOPPING, outcome_.detail);
  endTask_ = kj::evalLater([this]() { return carryOutEnd(); }).eagerlyEvaluate([this](kj::Exception&& exception) {
    log_.write(Severity::kError, "vm", rpc::fromKj(exception).message());
    endedFulfiller_->fulfill();
  });
}

kj::Promise<void> Vm::carryOutEnd() {
  timeout_ = nullptr;
  vsock_ = nullptr;
  kj::Promise<void> measured = kj::READY_NOW;
  if (worker_ && outcome_.kind == EndKind::GUEST && !isEndForced_ && spec_.measureMemory.count() > 0) {
    auto forced = kj::newPromiseAndFulfiller<void>();
    endForced_ = kj::mv(forced.fulfiller);
    measured_.reset();  // as it is now
    measured = measure(spec_.measureMemory)
                   .then([this](std::uint64_t bytes) { outcome_.workerPrivateBytes = bytes; })
                   .exclusiveJoin(kj::mv(forced.promise));
  }
  return measured
      .then([this]() -> kj::Promise<void> {
        if (!worker_) {
          return kj::READY_NOW;
        }
        worker_->process().kill();
        if (measurementGivenUp_.get() != nullptr) {
          measurementGivenUp_->fulfill(std::uint64_t{0});
        }
        return worker_->process().onEnd();
      })
      .then([this]() -> kj::Promise<void> {
        mark("worker-gone");
        for (FewLines* lines : {&resetLines_, &panicLines_, &fullDiskLines_}) {
          lines->tellOthers();
        }
        kj::Vector<kj::Promise<void>> finished;
        for (const auto& console : consoles_) {
          finished.add(console->finish(kConsoleFlush));
        }
        return kj::joinPromises(finished.releaseAsArray());
      })
      .then([this]() {
        if (worker_) {
          jailed::JailedProcess& process = worker_->process();
          if (outcome_.kind == EndKind::WORKER_DIED || outcome_.kind == EndKind::START_FAILED) {
            outcome_.workerExit = process.end()->exit;
            outcome_.lastLog.assign(process.lastLog().begin(), process.lastLog().end());
          }
          process.removeGroup();
        }
        return settleDisks();
      })
      .then([this]() {
        resources_ = OpenedResources();
        if (!spec_.keepConsole) {
          consoles_.clear();
        }
        endedUnixMs_ = unixMilliseconds();
        mark("all-gone");
        outcome_.timings = timings_;
        setState(VmState::ENDED, outcome_.detail);
        endedFulfiller_->fulfill();
      });
}

kj::Promise<void> Vm::settleDisks() {
  DiskPlans plans = std::move(resources_.diskPlans);
  if (!plans.needSettling()) {
    return kj::READY_NOW;
  }
  return settleAside(io_.unixEventPort, std::move(plans)).then([this](std::vector<std::string>&& told) {
    tellOfDisks(told);
    outcome_.notes = std::move(told);
  });
}

void Vm::tellOfDisks(const std::vector<std::string>& lines) {
  for (const std::string& line : lines) {
    log_.write(Severity::kWarning, "disk", line);
  }
}

Vm::AbandonedDisks::~AbandonedDisks() {
  try {
    if (vm.resources_.diskPlans.needSettling()) {
      vm.tellOfDisks(vm.resources_.diskPlans.settle());
    }
  } catch (const std::exception& error) {
    vm.log_.write(Severity::kError, "disk", error.what());
  }
}

}  // namespace vmmhost::vm
