// Every verb in every state, on owned VMs and, while a VM is being started, through the control socket.
#include <thread>

#include "tests/conformance/console_reader.h"
#include "tests/conformance/json_text.h"
#include "tests/conformance/supervised.h"
#include "vmmhost/plugin.h"

namespace vmmhost::conformance {

namespace {

void expectState(const OwnedVm& vm, State state, const std::string& when) {
  check(vm.state() == state,
        when + " the VM is " + stateText(vm.state()) + ", expected " + std::string(stateText(state)));
}

// A VM brought into a state. What keeps it there lives as long.
struct Prepared {
  std::unique_ptr<OwnedVm> vm;
  std::future<Ending> stopping;
};

enum class When { kRunning, kPaused, kStopping, kEnded };

Prepared prepare(Context& context, When when) {
  Prepared prepared{context.start({}), {}};
  switch (when) {
    case When::kRunning:
      break;
    case When::kPaused:
      get(prepared.vm->pause(), "pausing");
      break;
    case When::kStopping:
      // Calls are carried out in their order: whatever comes next finds the end begun.
      prepared.stopping = prepared.vm->stop();
      break;
    case When::kEnded:
      get(prepared.vm->stop(), "stopping");
      break;
  }
  return prepared;
}

const char* whenText(When when) {
  static constexpr const char* kTexts[] = {"running", "paused", "stopping", "ended"};
  return kTexts[static_cast<int>(when)];
}

struct Verb {
  const char* name;
  const char* capability;
  std::future<void> (OwnedVm::*function)();
  kj::Promise<void> (client::ControlClient::*byClient)(std::chrono::milliseconds limit);
  State afterRunning;  // the state that it leaves a running VM in
  State afterPaused;
};

constexpr Verb kVerbs[] = {
    {"pause", VMMHOST_CAP_PAUSE, &OwnedVm::pause, &client::ControlClient::pause, State::kPaused, State::kPaused},
    {"resume", VMMHOST_CAP_PAUSE, &OwnedVm::resume, &client::ControlClient::resume, State::kRunning, State::kRunning},
    {"reset", VMMHOST_CAP_RESET, &OwnedVm::reset, &client::ControlClient::reset, State::kRunning, State::kPaused},
    {"shutdown", VMMHOST_CAP_POWER_BUTTON, &OwnedVm::shutdown, &client::ControlClient::shutdown, State::kRunning,
     State::kPaused},
};

// The guest is only asked: one that does not listen runs on until it is stopped, another one ends of its own accord.
void checkShutdown(const std::string& kind, const std::string& cause) {
  check(kind == "stopped" || (kind == "guest" && cause == "powerOff"), "the VM ended as " + kind + ' ' + cause);
}

void verbInState(Context& context, const Verb& verb, When when) {
  const Prepared prepared = prepare(context, when);
  OwnedVm& vm = *prepared.vm;
  const std::string what = std::string(verb.name) + " of a " + whenText(when) + " VM";
  if (when == When::kStopping || when == When::kEnded) {
    const Error error =
        refused(ErrorCode::kFailedPrecondition, {verb.name}, what, [&]() { get((vm.*verb.function)(), what); });
    check(!error.retryable(), what + " is called retryable: " + error.message());
    checkEqual(get(vm.wait(), "the VM's end").kind, "stopped", "the kind of end");
    return;
  }
  if (verb.function == &OwnedVm::shutdown) {
    get((vm.*verb.function)(), what);
    const State state = vm.state();
    check(state == (when == When::kRunning ? verb.afterRunning : verb.afterPaused) || state == State::kStopping ||
              state == State::kEnded,
          "after " + what + " the VM is " + stateText(state));
    const Ending ending = get(vm.stop(), "stopping");
    checkShutdown(ending.kind, ending.cause);
    return;
  }
  for (int round = 0; round < 2; ++round) {  // twice is the same as once
    get((vm.*verb.function)(), what);
    expectState(vm, when == When::kRunning ? verb.afterRunning : verb.afterPaused, "after " + what);
  }
  checkEqual(get(vm.stop(), "stopping").kind, "stopped", "the kind of end");
}

void stopInState(Context& context, When when) {
  const Prepared prepared = prepare(context, when);
  auto first = prepared.vm->stop();
  auto second = prepared.vm->stop();
  for (auto* ending : {&first, &second}) {
    const Ending found = get(std::move(*ending), "stopping");
    checkEqual(found.kind, "stopped", "the kind of end");
    checkEqual(found.exitCode, 143, "the exit code");
  }
  expectState(*prepared.vm, State::kEnded, "after stop");
}

void waitInState(Context& context, When when) {
  const Prepared prepared = prepare(context, when);
  auto first = prepared.vm->wait();
  auto second = prepared.vm->wait();
  if (when == When::kRunning || when == When::kPaused) {
    check(first.wait_for(std::chrono::milliseconds(30)) == std::future_status::timeout,
          "wait answered though the VM had not ended");
    get(prepared.vm->stop(), "stopping");
  }
  checkEqual(get(std::move(first), "waiting").kind, "stopped", "the first waiter's kind of end");
  checkEqual(get(std::move(second), "waiting").kind, "stopped", "the second waiter's kind of end");
}

void consoleInState(Context& context, When when) {
  const Prepared prepared = prepare(context, when);
  if (when == When::kEnded) {
    refused(ErrorCode::kFailedPrecondition, {"console"}, "attaching to the console of an ended VM",
            [&]() { get(prepared.vm->console(0, true), "attaching"); });
    return;
  }
  // One that is stopping still has it, or says that it is no longer there.
  try {
    ConsoleReader console(get(prepared.vm->console(65536, true), "attaching"));
    if (when == When::kPaused) {
      get(prepared.vm->resume(), "resuming");  // it may have been paused before it said anything
    }
    if (when != When::kStopping) {
      console.readUntil("looping\n");
      get(prepared.vm->stop(), "stopping");
    }
    console.readToEnd();
  } catch (const Error& error) {
    check(when == When::kStopping && error.code() == ErrorCode::kFailedPrecondition, "attaching: " + text(error));
  }
}

void describeInState(Context& context, When when) {
  const Prepared prepared = prepare(context, when);
  const Json info(get(prepared.vm->describe(), "describing"));
  const std::string state = info.has("state") ? info.string("state") : "preparing";
  if (when == When::kStopping) {
    check(state == "stopping" || state == "ended", "the state of a stopping VM is told as " + state);
  } else {
    checkEqual(state, whenText(when), "the state that is told");
  }
  checkEqual(info.has("outcome"), state == "ended", "whether an outcome is told");
}

// Asked for before the supervisor can have started anything: refused for now, or carried out once it runs.
void verbWhileStarting(Context& context, const Verb& verb) {
  SupervisedVm vm(context, {});
  auto answer = (vm.starter().*verb.byClient)(kPatience);
  bool done = true;
  try {
    context.await(kj::mv(answer), verb.name);
  } catch (const Error& error) {
    done = false;
    check(error.code() == ErrorCode::kFailedPrecondition,
          std::string(verb.name) + " of a VM that is being started: " + text(error));
  }
  vm.awaitRunning();
  if (verb.function == &OwnedVm::shutdown) {
    const Ended ended = vm.stop();
    checkShutdown(ended.kind, ended.cause);
    return;
  }
  checkEqual(vm.state(), done && verb.afterRunning == State::kPaused ? "paused" : "running", "the state");
  checkEqual(vm.stop().kind, "stopped", "the kind of end");
}

void stopWhileStarting(Context& context) {
  SupervisedVm vm(context, {});
  const Ended ended = vm.stop("before it ran");
  check(ended.kind == "stopped" || ended.kind == "startFailed", "the kind of end is " + ended.kind);
  checkEqual(ended.exitCode != 0, true, "whether the exit code tells that it was ended");
}

void waitWhileStarting(Context& context) {
  SupervisedVm vm(context, {.guest = "poweroff"});
  const Ended ended = vm.wait();
  checkEqual(ended.kind, "guest", "the kind of end");
  checkEqual(ended.cause, "powerOff", "the cause");
}

void infoWhileStarting(Context& context) {
  SupervisedVm vm(context, {});
  const std::string state = vm.state();
  check(state == "preparing" || state == "created" || state == "running", "the state is told as " + state);
  vm.awaitRunning();
  checkEqual(vm.state(), "running", "the state");
  vm.stop();
}

// Verbs from several threads at once leave the VM whole, in the state of the last of them.
void manyVerbsAtOnce(Context& context) {
  auto vm = context.start({});
  std::vector<std::thread> threads;
  std::vector<std::string> failures(4);
  for (std::size_t index = 0; index < failures.size(); ++index) {
    threads.emplace_back([&vm, &failures, index]() {
      try {
        for (int round = 0; round < 8; ++round) {
          get(index % 2 == 0 ? vm->pause() : vm->resume(), "a verb");
        }
      } catch (const std::exception& error) {
        failures[index] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (const std::string& failure : failures) {
    check(failure.empty(), "one of several verbs at once failed: " + failure);
  }
  get(vm->pause(), "pausing");
  expectState(*vm, State::kPaused, "after the last pause");
  get(vm->resume(), "resuming");
  expectState(*vm, State::kRunning, "after the last resume");
  checkEqual(get(vm->stop(), "stopping").kind, "stopped", "the kind of end");
}

void stopDuringPause(Context& context) {
  auto vm = context.start({});
  auto pausing = vm->pause();
  auto ending = vm->stop();
  checkEqual(get(std::move(ending), "stopping").kind, "stopped", "the kind of end");
  try {
    get(std::move(pausing), "pausing");  // was in time, or was told that it was not
  } catch (const Error& error) {
    check(error.code() == ErrorCode::kFailedPrecondition || error.code() == ErrorCode::kWorkerDied ||
              error.code() == ErrorCode::kCancelled,
          "pause that the VM's end overtook: " + text(error));
  }
  expectState(*vm, State::kEnded, "after stop");
}

}  // namespace

void addLifecycleCases(Cases& cases) {
  constexpr When kAll[] = {When::kRunning, When::kPaused, When::kStopping, When::kEnded};
  const auto add = [&](const std::string& verb, When when, std::vector<std::string> needs,
                       std::function<void(Context&)> run) {
    if (when == When::kPaused && (needs.empty() || needs[0] != VMMHOST_CAP_PAUSE)) {
      needs.insert(needs.begin(), VMMHOST_CAP_PAUSE);
    }
    needs.insert(needs.begin(), VMMHOST_CAP_BOOT_PVH);
    cases.push_back({"lifecycle." + verb + "-of-" + whenText(when), std::move(needs), std::move(run)});
  };
  for (const When when : kAll) {
    for (const Verb& verb : kVerbs) {
      add(verb.name, when, {verb.capability}, [&verb, when](Context& c) { verbInState(c, verb, when); });
    }
    add("stop", when, {}, [when](Context& c) { stopInState(c, when); });
    add("wait", when, {}, [when](Context& c) { waitInState(c, when); });
    add("console", when, {}, [when](Context& c) { consoleInState(c, when); });
    add("describe", when, {}, [when](Context& c) { describeInState(c, when); });
  }
  for (const Verb& verb : kVerbs) {
    cases.push_back({std::string("lifecycle.") + verb.name + "-while-starting",
                     {VMMHOST_CAP_BOOT_PVH, verb.capability},
                     [&verb](Context& c) { verbWhileStarting(c, verb); }});
  }
  cases.push_back({"lifecycle.stop-while-starting", {VMMHOST_CAP_BOOT_PVH}, stopWhileStarting});
  cases.push_back({"lifecycle.wait-while-starting", {VMMHOST_CAP_BOOT_PVH}, waitWhileStarting});
  cases.push_back({"lifecycle.describe-while-starting", {VMMHOST_CAP_BOOT_PVH}, infoWhileStarting});
  cases.push_back({"lifecycle.many-verbs-at-once", {VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_PAUSE}, manyVerbsAtOnce});
  cases.push_back({"lifecycle.stop-overtakes-pause", {VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_PAUSE}, stopDuringPause});
}

}  // namespace vmmhost::conformance
