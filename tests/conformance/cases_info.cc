// What is told about a VM and about the backend, and that it is so.
#include <signal.h>

#include <algorithm>
#include <set>

#include "tests/conformance/console_reader.h"
#include "tests/conformance/json_text.h"
#include "tests/conformance/leaks.h"
#include "tests/conformance/supervised.h"
#include "vmmhost/plugin.h"

namespace vmmhost::conformance {

namespace {

std::unique_ptr<Json> describe(OwnedVm& vm) {
  return std::make_unique<Json>(get(vm.describe(), "describing"));
}

void identity(Context& context) {
  auto vm = context.start({.members = R"("name":"told")"});
  const auto info = describe(*vm);
  checkEqual(info->string("name"), "told", "the name");
  checkEqual(info->string("backend"), context.backend().name, "the backend");
  checkEqual(info->number("supervisorPid"), ::getpid(), "the process that hosts the VM");
  const auto pid = static_cast<pid_t>(info->number("workerPid"));
  check(::kill(pid, 0) == 0, "the worker that is told does not live");
  const auto family = descendants(::getpid());
  check(std::find(family.begin(), family.end(), pid) != family.end(), "the worker that is told is somebody else's");
  check(info->number("startedUnixMs") > 1'600'000'000'000, "the time of the start is not told");
}

void jailIsTold(Context& context) {
  auto vm = context.start({});
  const auto info = describe(*vm);
  std::string all;
  for (const std::string& part : info->strings("jail")) {
    all += part + '\n';
  }
  for (const char* part : {"seccomp", "no new privileges", "capabilit", "namespace", "root"}) {
    checkContains(all, part, "what was verified of the jail");
  }
}

void timingsAreInOrder(Context& context) {
  auto vm = context.start({.guest = "poweroff"});
  get(vm->wait(), "the VM's end");
  const auto info = describe(*vm);
  std::int64_t before = 0;
  std::set<std::string> phases;
  for (std::size_t index = 0; index < info->size("timings"); ++index) {
    const std::string at = "timings." + std::to_string(index);
    const std::string phase = info->string(at + ".phase");
    phases.insert(phase);
    if (phase == "guest-kernel" || phase == "guest-init" || phase.rfind("boot-phase-", 0) == 0) {
      continue;  // told by the guest, and to the host a little later
    }
    const std::int64_t ns = info->number(at + ".ns");
    check(ns >= before, "the phase " + phase + " is told to be before the one before it");
    before = ns;
  }
  for (const char* name : {"worker-hello", "verified", "vm-created", "guest-runs", "guest-ended", "all-gone"}) {
    check(phases.count(name) == 1, std::string("the phase ") + name + " is not told: " + info->text());
  }
}

void abilitiesAgree(Context& context) {
  auto vm = context.start({});
  const auto info = describe(*vm);
  const auto abilities = info->strings("abilities");
  for (const char* name : {VMMHOST_CAP_PAUSE, VMMHOST_CAP_POWER_BUTTON, VMMHOST_CAP_RESET}) {
    const bool able = std::find(abilities.begin(), abilities.end(), name) != abilities.end();
    check(able == context.backend().has(name),
          std::string(name) + (able ? " is there, but not advertised" : " is advertised, but not there"));
  }
}

void capabilitiesAreNames(Context& context) {
  std::set<std::string> seen;
  for (const std::string& capability : context.backend().capabilities) {
    check(!capability.empty() && capability.size() <= 64 &&
              capability.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos,
          "a capability is called \"" + capability + '"');
    check(seen.insert(capability).second, capability + " is advertised twice");
  }
}

void countersCount(Context& context) {
  auto vm = context.start({.guest = "serial_echo"});
  ConsoleReader console(get(vm->console(0xffffffff, true), "attaching to the console"));
  console.readUntil("echo ready\n");
  const auto total = [&]() {
    const auto info = describe(*vm);
    check(info->size("counters.names") == info->size("counters.values"), "counters without names: " + info->text());
    std::int64_t sum = 0;
    for (std::size_t index = 0; index < info->size("counters.values"); ++index) {
      sum += info->number("counters.values." + std::to_string(index));
    }
    return sum;
  };
  const std::int64_t before = total();
  check(before > 0, "nothing was counted of a guest that has spoken");
  console.type("counted");
  console.readUntil("counted");
  check(total() > before, "nothing was counted of what a guest did");
}

void endIsTold(Context& context) {
  auto vm = context.start({.guest = "reset"});
  const Ending ending = get(vm->wait(), "the VM's end");
  const auto info = describe(*vm);
  checkEqual(info->string("state"), "ended", "the state");
  checkEqual(info->string("outcome.cause"), ending.cause, "the cause");
  checkEqual(info->number("outcome.exitCode"), ending.exitCode, "the exit code");
  check(info->number("endedUnixMs") >= info->number("startedUnixMs"), "the VM ended before it began");
  check(!info->has("workerPid"), "a worker is told of an ended VM");
}

void privateMemoryIsTold(Context& context) {
  auto vm = context.start({});
  check(describe(*vm)->number("workerPrivateBytes") > 0, "the worker's private memory is not told");
}

void supervisedIsTold(Context& context) {
  SupervisedVm vm(context, {}, {.detached = true});
  vm.awaitRunning();
  const auto response = context.await(vm.starter().info(kPatience), "asking");
  const auto info = response.getInfo();
  checkEqual(std::string(info.getName().cStr()), "vm", "the name");
  checkEqual(std::string(info.getBackend().cStr()), context.backend().name, "the backend");
  checkEqual(info.getSupervisorPid(), vm.pid(), "the supervisor");
  check(info.getDetached(), "that it is detached is not told");
  check(info.getRemoveOnEnd(), "that nothing of it is kept is not told");
  check(info.getJail().size() > 0, "nothing of the jail is told");
  vm.stop();
}

void sideBySide(Context& context) {
  std::vector<std::unique_ptr<OwnedVm>> vms;
  for (int index = 0; index < 4; ++index) {
    vms.push_back(context.start({.guest = "serial_echo"}));
  }
  std::vector<std::unique_ptr<ConsoleReader>> consoles;
  for (auto& vm : vms) {
    consoles.push_back(std::make_unique<ConsoleReader>(get(vm->console(0xffffffff, true), "attaching")));
    consoles.back()->readUntil("echo ready\n");
  }
  for (std::size_t index = 0; index < vms.size(); ++index) {
    consoles[index]->type("I am " + std::to_string(index) + '\x04');
  }
  for (std::size_t index = 0; index < vms.size(); ++index) {
    const std::string& said = consoles[index]->readToEnd();
    for (std::size_t other = 0; other < vms.size(); ++other) {
      check((said.find("I am " + std::to_string(other)) != std::string::npos) == (index == other),
            "console " + std::to_string(index) + " said " + said);
    }
    checkEqual(get(vms[index]->wait(), "the VM's end").cause, "powerOff", "the cause");
  }
}

void startedTogether(Context& context) {
  std::vector<std::future<std::unique_ptr<OwnedVm>>> starting;
  for (int index = 0; index < 6; ++index) {
    starting.push_back(context.starting({}, context.options()));
  }
  std::vector<std::unique_ptr<OwnedVm>> vms;
  std::set<std::int64_t> workers;
  for (auto& one : starting) {
    vms.push_back(get(std::move(one), "starting"));
    workers.insert(describe(*vms.back())->number("workerPid"));
  }
  checkEqual(workers.size(), vms.size(), "the number of workers");
  std::vector<std::future<Ending>> stopping;
  for (auto& vm : vms) {
    stopping.push_back(vm->stop());
  }
  for (auto& one : stopping) {
    checkEqual(get(std::move(one), "stopping").kind, "stopped", "the kind of end");
  }
}

void neighbourNeverNotices(Context& context) {
  auto victim = context.start({});
  auto neighbour = context.start({.guest = "serial_echo"});
  ConsoleReader console(get(neighbour->console(0xffffffff, true), "attaching"));
  console.readUntil("echo ready\n");
  check(::kill(static_cast<pid_t>(describe(*victim)->number("workerPid")), SIGKILL) == 0, "no worker to kill");
  checkEqual(get(victim->wait(), "the victim's end").kind, "workerDied", "the victim's kind of end");
  check(neighbour->state() == State::kRunning, "the neighbour does not run");
  console.type("still here\x04");
  console.readUntil("still here");
  checkEqual(get(neighbour->wait(), "the neighbour's end").cause, "powerOff", "the neighbour's cause");
}

void twoHosts(Context& context) {
  auto other = context.makeHost();
  auto first = context.start({});
  auto second = get(other->start(context.config({}), context.options()), "starting in the other host");
  first.reset();
  check(second->state() == State::kRunning, "the VM of one host went with that of the other");
  checkEqual(get(second->stop(), "stopping").kind, "stopped", "the kind of end");
}

void manyInTurn(Context& context) {
  for (int round = 0; round < 8; ++round) {
    auto vm = context.start({.guest = "poweroff"});
    checkEqual(get(vm->wait(), "the VM's end").cause, "powerOff", "the cause");
  }
}

void supervisedSideBySide(Context& context) {
  SupervisedVm one(context, {}, {.name = "one"});
  SupervisedVm two(context, {}, {.name = "two"});
  one.awaitRunning();
  two.awaitRunning();
  const auto entries = runtime::list(one.directories(), runtime::Kind::kVm);
  checkEqual(entries.size(), std::size_t{2}, "the number of VMs that are listed");
  check(entries[0].name.text == "one" && entries[0].alive && entries[1].name.text == "two" && entries[1].alive,
        "the VMs are not listed as they are");
  one.stop();
  checkEqual(two.state(), "running", "the other's state");
  two.stop();
}

}  // namespace

void addInfoCases(Cases& cases) {
  const std::vector<std::string> pvh = {VMMHOST_CAP_BOOT_PVH};
  cases.push_back({"info.identity", pvh, identity});
  cases.push_back({"info.jail-is-told", pvh, jailIsTold});
  cases.push_back({"info.timings-are-in-order", pvh, timingsAreInOrder});
  cases.push_back({"info.abilities-agree-with-capabilities", pvh, abilitiesAgree});
  cases.push_back({"info.capabilities-are-names", {}, capabilitiesAreNames});
  cases.push_back(
      {"info.counters-count", {VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_COUNTERS, VMMHOST_CAP_CONSOLE_SERIAL}, countersCount});
  cases.push_back({"info.end-is-told", pvh, endIsTold});
  cases.push_back({"info.private-memory-is-told", pvh, privateMemoryIsTold});
  cases.push_back({"info.supervised-is-told", pvh, supervisedIsTold});
}

void addSeveralCases(Cases& cases) {
  const std::vector<std::string> pvh = {VMMHOST_CAP_BOOT_PVH};
  const std::vector<std::string> serial = {VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_CONSOLE_SERIAL};
  cases.push_back({"several.consoles-of-their-own", serial, sideBySide});
  cases.push_back({"several.started-together", pvh, startedTogether});
  cases.push_back({"several.neighbour-never-notices", serial, neighbourNeverNotices});
  cases.push_back({"several.two-hosts", pvh, twoHosts});
  cases.push_back({"several.many-in-turn", pvh, manyInTurn});
  cases.push_back({"several.supervised-side-by-side", pvh, supervisedSideBySide});
}

}  // namespace vmmhost::conformance
