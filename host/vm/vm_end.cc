// How a VM ends: that its worker is gone, and what is cleared away.
#include <kj/debug.h>

#include "host/vm/vm.h"

namespace vmmhost::vm {
namespace {

using schema::EndCause;
using schema::EndKind;
using schema::VmState;

constexpr auto kConsoleFlush = 2 * kj::SECONDS;
constexpr auto kLastEvent = 200 * kj::MILLISECONDS;

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
                       const VmState state = life_.state();
                       if (life_.isEnding() || state == VmState::PREPARING || state == VmState::CREATED) {
                         return;  // starting reports it itself
                       }
                       beginEnd({EndKind::WORKER_DIED, EndCause::UNKNOWN, error.message(), error});
                     })
                     .eagerlyEvaluate(nullptr);
}

void Vm::beginEnd(WorkerEvents::End end, int signal) {
  if (!life_.beginEnd()) {
    return;
  }
  bootFilesUnwanted_->store(true);
  outcome_.kind = end.kind;
  outcome_.cause = end.cause;
  outcome_.detail = std::move(end.detail);
  outcome_.exitCode = exitCodeFor(end.kind, end.cause, end.error, signal);
  outcome_.error = std::move(end.error);
  consoles_.giveUp();
  life_.setState(VmState::STOPPING, outcome_.detail);
  endTask_ = kj::evalLater([this]() { return carryOutEnd(); }).eagerlyEvaluate([this](kj::Exception&& exception) {
    log_.write(Severity::kError, "vm", rpc::fromKj(exception).message());
    endedFulfiller_->fulfill();
  });
}

kj::Promise<void> Vm::measureAtEnd() {
  if (!worker_ || outcome_.kind != EndKind::GUEST || isEndForced_ || spec_.measureMemory.count() == 0) {
    return kj::READY_NOW;
  }
  auto forced = kj::newPromiseAndFulfiller<void>();
  endForced_ = kj::mv(forced.fulfiller);
  memory_.forget();
  return memory_.measure(worker_->process().pid(), spec_.measureMemory)
      .then([this](std::uint64_t bytes) { outcome_.workerPrivateBytes = bytes; })
      .exclusiveJoin(kj::mv(forced.promise));
}

kj::Promise<void> Vm::carryOutEnd() {
  timeout_ = nullptr;
  vsock_ = nullptr;
  return measureAtEnd()
      .then([this]() -> kj::Promise<void> {
        if (!worker_) {
          return kj::READY_NOW;
        }
        worker_->process().kill();
        memory_.giveUp();
        return worker_->process().onEnd();
      })
      .then([this]() {
        life_.mark("worker-gone");
        events_.finish();
        return consoles_.finish(kConsoleFlush);
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
        return disks_.settle();
      })
      .then([this](std::vector<std::string>&& notes) {
        outcome_.notes = std::move(notes);
        resources_ = OpenedResources();
        if (!spec_.keepConsole) {
          consoles_.clear();
        }
        life_.noteEnd();
        life_.mark("all-gone");
        outcome_.timings = life_.timings();
        life_.setState(VmState::ENDED, outcome_.detail);
        endedFulfiller_->fulfill();
      });
}

}  // namespace vmmhost::vm
