// Deadlines, and what is called off before it is done.
#include <signal.h>

#include <chrono>

#include "tests/conformance/json_text.h"
#include "tests/conformance/leaks.h"
#include "tests/conformance/supervised.h"
#include "vmmhost/plugin.h"

namespace vmmhost::conformance {

namespace {

using std::chrono::milliseconds;

pid_t workerPid(OwnedVm& vm) {
  return static_cast<pid_t>(Json(get(vm.describe(), "describing")).number("workerPid"));
}

void timeoutEndsIt(Context& context) {
  VmOptions options = context.options();
  options.timeout = milliseconds(1500);
  const auto begin = std::chrono::steady_clock::now();
  auto vm = context.start({}, options);
  const Ending ending = get(vm->wait(), "the VM's end");
  checkEqual(ending.kind, "timeout", "the kind of end");
  checkEqual(ending.exitCode, 124, "the exit code");
  checkContains(ending.detail, "1500", "the detail");
  check(std::chrono::steady_clock::now() - begin >= options.timeout, "the VM was ended before its time");
}

// What it takes here to start and pause one counts as well: a machine may be slow.
void timeoutOfPaused(Context& context) {
  const auto begin = std::chrono::steady_clock::now();
  get(context.start({})->pause(), "pausing one without a timeout");
  const auto taken = std::chrono::ceil<milliseconds>(std::chrono::steady_clock::now() - begin);
  VmOptions options = context.options();
  options.timeout = 4 * taken + milliseconds(500);
  const auto started = std::chrono::steady_clock::now();
  auto vm = context.start({}, options);
  get(vm->pause(), "pausing");
  checkEqual(get(vm->wait(), "the VM's end").kind, "timeout", "the kind of end");
  check(std::chrono::steady_clock::now() - started >= options.timeout, "the VM was ended before its time");
}

void timeoutDuringStart(Context& context) {
  VmOptions options = context.options();
  options.timeout = milliseconds(1);
  auto vm = context.start({}, options);
  checkEqual(get(vm->wait(), "the VM's end").kind, "timeout", "the kind of end");
}

void timeoutNotReached(Context& context) {
  VmOptions options = context.options();
  options.timeout = milliseconds(600000);
  auto vm = context.start({.guest = "poweroff"}, options);
  checkEqual(get(vm->wait(), "the VM's end").cause, "powerOff", "the cause");
}

void timeoutOfSupervised(Context& context) {
  const auto begin = std::chrono::steady_clock::now();
  SupervisedVm vm(context, {}, {.timeout = milliseconds(1500)});
  const Ended ended = vm.wait();
  check(std::chrono::steady_clock::now() - begin >= milliseconds(1500), "the VM was ended before its time");
  checkEqual(ended.kind, "timeout", "the kind of end");
  checkEqual(ended.exitCode, 124, "the exit code");
}

void frozenWorkerIsStopped(Context& context) {
  auto vm = context.start({});
  check(::kill(workerPid(*vm), SIGSTOP) == 0, "the worker cannot be frozen");
  checkEqual(get(vm->stop(), "stopping").kind, "stopped", "the kind of end");
}

void frozenWorkerHasADeadline(Context& context) {
  auto vm = context.start({});
  const pid_t pid = workerPid(*vm);
  check(::kill(pid, SIGSTOP) == 0, "the worker cannot be frozen");
  const Error error =
      refused(ErrorCode::kDeadlineExceeded, {"pausing"}, "pausing", [&]() { get(vm->pause(), "pausing"); });
  check(error.retryable(), "it is not called retryable: " + error.message());
  check(::kill(pid, SIGCONT) == 0, "the worker cannot be thawed");
  get(vm->pause(), "pausing again");
  check(vm->state() == State::kPaused, "the VM is not paused once its worker goes on");
}

void futureDropped(Context& context) {
  context.starting({}, context.options());
  context.start({.guest = "poweroff"});  // the host goes on
}

void hostDestroyedWhileStarting(Context& context) {
  auto host = context.makeHost();
  auto starting = host->start(context.config({}), context.options());
  host.reset();
  try {
    auto vm = get(std::move(starting), "starting");  // was in time
    check(vm == nullptr || vm->state() == State::kEnded || vm->state() == State::kRunning, "the VM is in no state");
  } catch (const Error& error) {
    check(error.code() == ErrorCode::kCancelled, "the start was called off with " + text(error));
  } catch (const std::future_error&) {
    // The promise went with the host.
  }
}

void handleDestroyedWhilePausing(Context& context) {
  auto vm = context.start({});
  auto pausing = vm->pause();
  vm.reset();
  try {
    get(std::move(pausing), "pausing");
  } catch (const Error&) {
    // Either is an answer.
  }
}

void waiterOutlivesHandle(Context& context) {
  auto vm = context.start({});
  auto waiting = vm->wait();
  vm.reset();
  checkEqual(get(std::move(waiting), "waiting").kind, "stopped", "the kind of end");
}

void starterLeavesWhileStarting(Context& context) {
  SupervisedVm vm(context, {});
  vm.leave();
  vm.reap();
}

void starterLeavesWhileRunning(Context& context) {
  SupervisedVm vm(context, {}, {.removeOnEnd = false});
  vm.awaitRunning();
  auto other = vm.connect();
  auto waiting = other->wait();
  context.await(other->info(kPatience).ignoreResult(), "asking");
  vm.leave();
  const Ended ended = readOutcome(context.await(kj::mv(waiting), "the VM's end").getOutcome());
  checkEqual(ended.kind, "clientGone", "the kind of end");
  vm.reap();
}

void waiterLeaves(Context& context) {
  SupervisedVm vm(context, {});
  vm.awaitRunning();
  auto other = vm.connect();
  auto waiting = other->wait();
  context.await(other->info(kPatience).ignoreResult(), "the other client's question");
  { auto dropped = kj::mv(waiting); }
  other.reset();
  checkEqual(vm.state(), "running", "the state after a waiter has gone");
  vm.stop();
}

void callerLeavesDuringVerb(Context& context) {
  SupervisedVm vm(context, {});
  vm.awaitRunning();
  auto other = vm.connect();
  {
    auto pausing = other->pause(kPatience);
    context.work(milliseconds(0));
  }
  other.reset();
  const std::string state = vm.state();
  check(state == "running" || state == "paused", "the state after a caller has gone is " + state);
  context.await(vm.starter().resume(kPatience), "resuming");
  checkEqual(vm.state(), "running", "the state");
  vm.stop();
}

}  // namespace

void addDeadlineCases(Cases& cases) {
  const std::vector<std::string> pvh = {VMMHOST_CAP_BOOT_PVH};
  const std::vector<std::string> pause = {VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_PAUSE};
  cases.push_back({"deadlines.timeout-ends-it", pvh, timeoutEndsIt});
  cases.push_back({"deadlines.timeout-ends-a-paused-one", pause, timeoutOfPaused});
  cases.push_back({"deadlines.timeout-shorter-than-the-start", pvh, timeoutDuringStart});
  cases.push_back({"deadlines.timeout-that-is-not-reached", pvh, timeoutNotReached});
  cases.push_back({"deadlines.timeout-of-a-supervised-one", pvh, timeoutOfSupervised});
  cases.push_back({"deadlines.frozen-worker-is-stopped", pvh, frozenWorkerIsStopped});
  cases.push_back({"deadlines.verb-to-a-frozen-worker", pause, frozenWorkerHasADeadline});
}

void addCancelCases(Cases& cases) {
  const std::vector<std::string> pvh = {VMMHOST_CAP_BOOT_PVH};
  const std::vector<std::string> pause = {VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_PAUSE};
  cases.push_back({"cancel.handle-that-nobody-took", pvh, futureDropped});
  cases.push_back({"cancel.host-destroyed-while-starting", pvh, hostDestroyedWhileStarting});
  cases.push_back({"cancel.handle-destroyed-while-pausing", pause, handleDestroyedWhilePausing});
  cases.push_back({"cancel.waiter-outlives-the-handle", pvh, waiterOutlivesHandle});
  cases.push_back({"cancel.starter-leaves-while-starting", pvh, starterLeavesWhileStarting});
  cases.push_back({"cancel.starter-leaves-while-running", pvh, starterLeavesWhileRunning});
  cases.push_back({"cancel.waiter-leaves", pvh, waiterLeaves});
  cases.push_back({"cancel.caller-leaves-during-a-verb", pause, callerLeavesDuringVerb});
}

}  // namespace vmmhost::conformance
