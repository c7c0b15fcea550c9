// Several clients of one VM at once: detaching, attaching again, verbs from all sides.
#include <capnp/dynamic.h>

#include <set>
#include <string>

#include "host/plugin/abilities.h"
#include "tests/conformance/console_reader.h"
#include "tests/conformance/supervised.h"
#include "vmmhost/plugin.h"

namespace vmmhost::conformance {

namespace {

using std::chrono::milliseconds;

void detachedOutlivesItsStarter(Context& context) {
  SupervisedVm vm(context, {});
  vm.awaitRunning();
  context.await(vm.starter().detach(kPatience), "detaching");
  vm.leave();
  auto other = vm.connect();
  const auto info = context.await(other->info(kPatience), "asking");
  checkEqual(stateName(info.getInfo().getState()), "running", "the state");
  check(info.getInfo().getDetached(), "that it is detached is not told");
  const Ended ended = readOutcome(
      context.await(other->stop(schema::EndKind::STOPPED, "by another", kPatience), "stopping").getOutcome());
  checkEqual(ended.kind, "stopped", "the kind of end");
  checkContains(ended.detail, "by another", "the detail");
}

void detachedFromTheStart(Context& context) {
  SupervisedVm vm(context, {}, {.detached = true});
  vm.leave();  // at once
  auto other = vm.connect();
  context.await(other->started().ignoreResult(), "the start");
  context.await(other->stop(schema::EndKind::STOPPED, "enough", kPatience).ignoreResult(), "stopping");
}

// Each ability that clients may have is an object, and there is one exactly where `inspect` shows the ability.
void abilitiesAreObjects(Context& context) {
  SupervisedVm vm(context, {});
  vm.awaitRunning();
  auto other = vm.connect();
  const auto response = context.await(other->abilities(kPatience), "asking for its abilities");
  const capnp::DynamicStruct::Reader all = response.getAbilities();
  const auto info = context.await(other->info(kPatience), "asking");
  std::set<std::string> shown;
  for (const auto name : info.getInfo().getAbilities()) {
    shown.insert(name.cStr());
  }
  for (const plugin::Ability& ability : plugin::kAbilities) {
    if (ability.isHandedOut) {
      check(all.has(ability.field) == (shown.count(ability.shown) == 1),
            std::string(ability.shown) + (all.has(ability.field) ? " is an object, and not shown" : " is no object"));
    }
  }
  vm.stop();
}

// What is done by an object is done by the verbs, and told to those who watch.
void pausedByTheObject(Context& context) {
  SupervisedVm vm(context, {});
  vm.awaitRunning();
  auto other = vm.connect();
  auto pausable = context.await(other->abilities(kPatience), "asking for its abilities").getAbilities().getPausable();
  check(!context.await(pausable.pauseRequest().send(), "pausing").hasError(), "pausing failed");
  checkEqual(vm.state(), "paused", "the state");
  context.await(vm.starter().resume(kPatience), "resuming");
  checkEqual(vm.state(), "running", "the state");
  vm.stop();
  const auto late = context.await(pausable.pauseRequest().send(), "pausing");
  check(late.hasError(), "a VM that has ended was paused");
}

void onlyTheStarterDetaches(Context& context) {
  SupervisedVm vm(context, {});
  vm.awaitRunning();
  auto other = vm.connect();
  refused(ErrorCode::kFailedPrecondition, {"detach"}, "detaching somebody else's VM",
          [&]() { context.await(other->detach(kPatience), "detaching"); });
  other.reset();
  checkEqual(vm.state(), "running", "the state after another client has gone");
  vm.stop();
}

void attachedAgain(Context& context) {
  SupervisedVm vm(context, {.guest = "serial_echo"});
  {
    ConsoleReader first(context.await(vm.starter().console(0xffffffff, true), "attaching to the console"));
    first.readUntil("echo ready\n");
    first.type("before.");
    first.readUntil("before.");
  }
  vm.awaitRunning();
  context.await(vm.starter().detach(kPatience), "detaching");
  vm.leave();
  auto other = vm.connect();
  ConsoleReader again(context.await(other->console(0xffffffff, true), "attaching again"));
  again.readUntil("echo ready\nbefore.");
  auto waiting = other->wait();
  context.await(other->info(kPatience).ignoreResult(), "asking");  // the supervisor waits for nobody who comes late
  again.type("after.\x04");
  again.readUntil("after.echo done\n");
  checkEqual(readOutcome(context.await(kj::mv(waiting), "the VM's end").getOutcome()).cause, "powerOff", "the cause");
}

void consolesOfOneClientAreBounded(Context& context) {
  SupervisedVm vm(context, {});
  vm.awaitRunning();
  std::vector<Fd> streams;
  refused(ErrorCode::kResourceExhausted, {"console"}, "one console too many", [&]() {
    for (int index = 0; index < 64; ++index) {
      streams.push_back(context.await(vm.starter().console(0, false), "attaching"));
    }
  });
  check(!streams.empty(), "not even one console was given");
  auto other = vm.connect();
  context.await(other->console(0, false).ignoreResult(), "another client's console");
  vm.stop();
}

void verbsFromAllSides(Context& context) {
  SupervisedVm vm(context, {});
  vm.awaitRunning();
  std::vector<std::unique_ptr<client::ControlClient>> clients;
  for (int index = 0; index < 4; ++index) {
    clients.push_back(vm.connect());
  }
  for (int round = 0; round < 4; ++round) {
    kj::Vector<kj::Promise<void>> answers;
    for (std::size_t index = 0; index < clients.size(); ++index) {
      answers.add((index + static_cast<std::size_t>(round)) % 2 == 0 ? clients[index]->pause(kPatience)
                                                                     : clients[index]->resume(kPatience));
      answers.add(clients[index]->info(kPatience).ignoreResult());
    }
    context.await(kj::joinPromises(answers.releaseAsArray()), "verbs of four clients");
  }
  context.await(clients[0]->pause(kPatience), "pausing");
  for (auto& client : clients) {
    checkEqual(stateName(context.await(client->info(kPatience), "asking").getInfo().getState()), "paused",
               "the state that a client is told");
  }
  context.await(clients[3]->resume(kPatience), "resuming by another");
  checkEqual(vm.state(), "running", "the state");
  vm.stop();
}

void stopFromAllSides(Context& context) {
  SupervisedVm vm(context, {});
  vm.awaitRunning();
  auto one = vm.connect();
  auto two = vm.connect();
  auto waiting = two->wait();
  auto first = one->stop(schema::EndKind::STOPPED, "the first", kPatience);
  auto second = two->stop(schema::EndKind::STOPPED, "the second", kPatience);
  const Ended a = readOutcome(context.await(kj::mv(first), "stopping").getOutcome());
  const Ended b = readOutcome(context.await(kj::mv(second), "stopping").getOutcome());
  const Ended c = readOutcome(context.await(kj::mv(waiting), "waiting").getOutcome());
  checkEqual(a.kind, "stopped", "the kind of end");
  checkEqual(a.detail, b.detail, "the detail that one is told");
  checkEqual(b.detail, c.detail, "the detail that the other is told");
}

void waitersAreToldTheSame(Context& context) {
  SupervisedVm vm(context, {.guest = "serial_echo"});
  ConsoleReader console(context.await(vm.starter().console(0xffffffff, true), "attaching to the console"));
  console.readUntil("echo ready\n");
  auto one = vm.connect();
  auto two = vm.connect();
  auto first = one->wait();
  auto second = two->wait();
  context.await(one->info(kPatience).ignoreResult(), "asking");
  context.await(two->info(kPatience).ignoreResult(), "asking");
  console.type("\x04");
  const Ended a = readOutcome(context.await(kj::mv(first), "waiting").getOutcome());
  const Ended b = readOutcome(context.await(kj::mv(second), "waiting").getOutcome());
  check(a.kind == "guest" && a.cause == "powerOff", "the VM ended as " + a.kind + ' ' + a.cause);
  check(b.kind == a.kind && b.cause == a.cause && b.detail == a.detail && b.exitCode == a.exitCode,
        "the other was told " + b.kind + ' ' + b.cause);
}

void verbsAfterTheEnd(Context& context) {
  SupervisedVm vm(context, {.guest = "poweroff"});
  vm.wait();
  // The supervisor stays until its starter has heard how it went.
  const Ended again = vm.wait();
  checkEqual(again.cause, "powerOff", "the cause that is told again");
  const Error error =
      errorOf("pausing a VM that has ended", [&]() { context.await(vm.starter().pause(kPatience), "pausing"); });
  check(error.code() == ErrorCode::kFailedPrecondition || error.code() == ErrorCode::kSupervisorDied,
        "pausing a VM that has ended: " + text(error));
  vm.leave();
  vm.reap();
}

void thirdPartyCannotConnectAfterTheEnd(Context& context) {
  SupervisedVm vm(context, {.guest = "poweroff"}, {.removeOnEnd = false});
  vm.wait();
  vm.leave();
  vm.reap();
  const auto folders = vm.directories();
  const Error error =
      errorOf("connecting to a VM that has ended", [&]() { runtime::connectControl(folders, runtime::vmName("vm")); });
  check(error.code() == ErrorCode::kFailedPrecondition || error.code() == ErrorCode::kNotFound,
        "connecting to a VM that has ended: " + text(error));
  runtime::remove(folders, runtime::vmName("vm"));
}

}  // namespace

void addClientCases(Cases& cases) {
  const std::vector<std::string> pvh = {VMMHOST_CAP_BOOT_PVH};
  const std::vector<std::string> serial = {VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_CONSOLE_SERIAL};
  cases.push_back({"clients.detached-outlives-its-starter", pvh, detachedOutlivesItsStarter});
  cases.push_back({"clients.detached-from-the-start", pvh, detachedFromTheStart});
  cases.push_back({"clients.abilities-are-objects", pvh, abilitiesAreObjects});
  cases.push_back({"clients.paused-by-the-object", {VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_PAUSE}, pausedByTheObject});
  cases.push_back({"clients.only-the-starter-detaches", pvh, onlyTheStarterDetaches});
  cases.push_back({"clients.attached-again", serial, attachedAgain});
  cases.push_back({"clients.consoles-of-one-are-bounded", serial, consolesOfOneClientAreBounded});
  cases.push_back({"clients.verbs-from-all-sides", {VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_PAUSE}, verbsFromAllSides});
  cases.push_back({"clients.stop-from-all-sides", pvh, stopFromAllSides});
  cases.push_back({"clients.waiters-are-told-the-same", serial, waitersAreToldTheSame});
  cases.push_back({"clients.verbs-after-the-end", pvh, verbsAfterTheEnd});
  cases.push_back({"clients.no-connecting-after-the-end", pvh, thirdPartyCannotConnectAfterTheEnd});
}

}  // namespace vmmhost::conformance
