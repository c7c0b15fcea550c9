// How a VM ends, and that each cause is told as what it is.
#include <signal.h>

#include "tests/conformance/json_text.h"
#include "tests/conformance/supervised.h"
#include "vmmhost/plugin.h"

namespace vmmhost::conformance {

namespace {

void expectEnding(const Ending& ending, const std::string& kind, const std::string& cause, int exitCode) {
  const std::string all = ending.kind + ' ' + ending.cause + " (" + ending.detail + ')';
  check(ending.kind == kind && (cause.empty() || ending.cause == cause),
        "the VM ended as " + all + ", expected " + kind + ' ' + cause);
  checkEqual(ending.exitCode, exitCode, "the exit code of " + all);
  check(!ending.detail.empty(), "there is no detail");
}

Ending endOf(Context& context, const std::string& guest) {
  auto vm = context.start({.guest = guest});
  const Ending ending = get(vm->wait(), "the VM's end");
  check(vm->state() == State::kEnded, "the VM is not ended");
  return ending;
}

void powerOff(Context& context) {
  expectEnding(endOf(context, "poweroff"), "guest", "powerOff", 0);
}

void powerOffAfterOutput(Context& context) {
  expectEnding(endOf(context, "hello"), "guest", "powerOff", 0);
}

void resetRequest(Context& context) {
  expectEnding(endOf(context, "reset"), "guest", "reset", 3);
}

void tripleFault(Context& context) {
  expectEnding(endOf(context, "triple_fault"), "guest", "tripleFault", 1);
}

// Guest code where there is no memory. What a hypervisor makes of that is its own: the guest runs on, or ends with a
// cause that is no power-off.
void guestThatLeavesMemory(Context& context) {
  auto vm = context.start({.guest = "internal_error"});
  auto waiting = vm->wait();
  if (waiting.wait_for(std::chrono::seconds(2)) == std::future_status::timeout) {
    checkEqual(get(vm->stop(), "stopping").kind, "stopped", "the kind of end of a guest that ran on");
    return;
  }
  const Ending ending = waiting.get();
  checkEqual(ending.kind, "guest", "the kind of end");
  check(ending.cause == "crash" || ending.cause == "tripleFault" || ending.cause == "workerFault" ||
            ending.cause == "reset",
        "the cause is " + ending.cause + ": " + ending.detail);
  checkEqual(ending.exitCode, ending.cause == "reset" ? 3 : 1, "the exit code");
}

void portsThatNothingAnswers(Context& context) {
  expectEnding(endOf(context, "port_io"), "guest", "powerOff", 0);
}

void addressesThatNothingAnswers(Context& context) {
  expectEnding(endOf(context, "memory_io"), "guest", "powerOff", 0);
}

void stopped(Context& context) {
  auto vm = context.start({});
  expectEnding(get(vm->stop(), "stopping"), "stopped", "", 143);
}

void killedWorker(Context& context) {
  auto vm = context.start({});
  const auto pid = static_cast<pid_t>(Json(get(vm->describe(), "describing")).number("workerPid"));
  check(::kill(pid, SIGKILL) == 0, "the worker cannot be killed");
  const Ending ending = get(vm->wait(), "the VM's end");
  expectEnding(ending, "workerDied", "", 1);
  checkContains(ending.detail, "SIGKILL", "the detail");
  refused(ErrorCode::kFailedPrecondition, {"pause"}, "pausing a VM without a worker",
          [&]() { get(vm->pause(), "pausing"); });
}

void killedWorkerOfPaused(Context& context) {
  auto vm = context.start({});
  const auto pid = static_cast<pid_t>(Json(get(vm->describe(), "describing")).number("workerPid"));
  get(vm->pause(), "pausing");
  check(::kill(pid, SIGKILL) == 0, "the worker cannot be killed");
  expectEnding(get(vm->wait(), "the VM's end"), "workerDied", "", 1);
}

void signalledSupervisor(Context& context) {
  SupervisedVm vm(context, {});
  vm.awaitRunning();
  check(::kill(vm.pid(), SIGTERM) == 0, "the supervisor cannot be signalled");
  const Ended ended = vm.wait();
  checkEqual(ended.kind, "signalled", "the kind of end");
  checkEqual(ended.exitCode, 143, "the exit code");
}

void killedSupervisor(Context& context) {
  SupervisedVm vm(context, {}, {.detached = true, .removeOnEnd = false});
  vm.awaitRunning();
  check(::kill(vm.pid(), SIGKILL) == 0, "the supervisor cannot be killed");
  vm.leave();
  vm.reap();
  const auto folders = vm.directories();
  const auto entry = runtime::find(folders, runtime::vmName("vm"));  // as any verb does, which clears away what is left
  check(!entry.alive, "an entry without its supervisor counts as alive");
  const Json exit(entry.exitJson.value_or("{}"));
  checkEqual(exit.string(exit.has("outcome.kind") ? "outcome.kind" : "kind"), "supervisorDied", "the kind of end");
  runtime::remove(folders, runtime::vmName("vm"));
}

void outcomeIsKept(Context& context) {
  SupervisedVm vm(context, {.guest = "reset"}, {.removeOnEnd = false});
  const Ended ended = vm.wait();
  vm.leave();
  vm.reap();
  const auto folders = vm.directories();
  const auto entry = runtime::find(folders, runtime::vmName("vm"));
  const Json exit(entry.exitJson.value_or("{}"));
  checkEqual(ended.kind, "guest", "the kind of end");
  check(!exit.has("outcome.kind"), "the kind of end in exit.json is not guest, which is left out");
  checkEqual(exit.string("outcome.cause"), "reset", "the cause in exit.json");
  checkEqual(exit.number("outcome.exitCode"), 3, "the exit code in exit.json");
  runtime::remove(folders, runtime::vmName("vm"));
  errorOf("looking for a VM that was removed", [&]() { runtime::find(folders, runtime::vmName("vm")); });
}

void nothingIsKept(Context& context) {
  SupervisedVm vm(context, {.guest = "poweroff"});
  vm.wait();
  vm.leave();
  vm.reap();
  refused(ErrorCode::kNotFound, {"vm"}, "looking for a VM of which nothing is kept",
          [&]() { runtime::find(vm.directories(), runtime::vmName("vm")); });
}

}  // namespace

void addExitCases(Cases& cases) {
  const auto add = [&](const char* name, void (*run)(Context&), std::vector<std::string> more = {}) {
    std::vector<std::string> needs = {VMMHOST_CAP_BOOT_PVH};
    needs.insert(needs.end(), more.begin(), more.end());
    cases.push_back({std::string("exits.") + name, needs, run});
  };
  add("power-off", powerOff);
  add("power-off-after-output", powerOffAfterOutput);
  add("reset-request", resetRequest);
  add("triple-fault", tripleFault, {VMMHOST_CAP_TRIPLE_FAULT});
  add("guest-that-leaves-memory", guestThatLeavesMemory);
  add("ports-that-nothing-answers", portsThatNothingAnswers);
  add("addresses-that-nothing-answers", addressesThatNothingAnswers);
  add("stopped", stopped);
  add("killed-worker", killedWorker);
  add("killed-worker-of-a-paused-one", killedWorkerOfPaused, {VMMHOST_CAP_PAUSE});
  add("signalled-supervisor", signalledSupervisor);
  add("killed-supervisor", killedSupervisor);
  add("outcome-is-kept", outcomeIsKept);
  add("nothing-is-kept-with-rm", nothingIsKept);
}

}  // namespace vmmhost::conformance
