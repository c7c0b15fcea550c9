// State changes: each told exactly once and in order, to the embedder and to watchers of the control socket.
#include <mutex>

#include "tests/conformance/supervised.h"
#include "vmmhost/plugin.h"

namespace vmmhost::conformance {

namespace {

// What an embedder is told, from the host's thread.
class Told {
 public:
  void attachTo(VmOptions& options) {
    options.onState = [this](State state, const std::string& detail) {
      const std::lock_guard lock(mutex_);
      states_.push_back(state);
      details_.push_back(detail);
    };
  }
  std::string states() const {
    const std::lock_guard lock(mutex_);
    std::string text;
    for (const State state : states_) {
      text += (text.empty() ? "" : " ") + std::string(stateText(state));
    }
    return text;
  }
  std::string detailOf(State state) const {
    const std::lock_guard lock(mutex_);
    for (std::size_t index = 0; index < states_.size(); ++index) {
      if (states_[index] == state) {
        return details_[index];
      }
    }
    fail(std::string("no change to ") + stateText(state) + " was told");
  }

 private:
  mutable std::mutex mutex_;
  std::vector<State> states_;
  std::vector<std::string> details_;
};

std::string statesOf(const Changes& changes) {
  std::string text;
  for (const auto& [state, detail] : changes) {
    text += (text.empty() ? "" : " ") + state;
  }
  return text;
}

void powerOffIsTold(Context& context) {
  Told told;
  VmOptions options = context.options();
  told.attachTo(options);
  auto vm = context.start({.guest = "poweroff"}, options);
  get(vm->wait(), "the VM's end");
  checkEqual(told.states(), "created running stopping ended", "what was told");
  check(vm->state() == State::kEnded, "the state is not ended when wait answers");
}

void stopIsTold(Context& context) {
  Told told;
  VmOptions options = context.options();
  told.attachTo(options);
  auto vm = context.start({}, options);
  checkEqual(told.states(), "created running", "what was told before start answered");
  get(vm->stop(), "stopping");
  get(vm->stop(), "stopping again");
  checkEqual(told.states(), "created running stopping ended", "what was told");
  checkContains(told.detailOf(State::kStopping), "stopped by its owner", "the reason told with stopping");
  checkContains(told.detailOf(State::kEnded), "stopped by its owner", "the reason told with ended");
}

void pausesAreTold(Context& context) {
  Told told;
  VmOptions options = context.options();
  told.attachTo(options);
  auto vm = context.start({}, options);
  for (int round = 0; round < 2; ++round) {
    get(vm->pause(), "pausing");
    get(vm->pause(), "pausing again");
    get(vm->resume(), "resuming");
    get(vm->resume(), "resuming again");
  }
  get(vm->pause(), "pausing");
  get(vm->stop(), "stopping");
  checkEqual(told.states(), "created running paused running paused running paused stopping ended", "what was told");
}

void resetIsNoChange(Context& context) {
  Told told;
  VmOptions options = context.options();
  told.attachTo(options);
  auto vm = context.start({}, options);
  get(vm->reset(), "resetting");
  get(vm->stop(), "stopping");
  checkEqual(told.states(), "created running stopping ended", "what was told");
}

void failedStartIsTold(Context& context) {
  Told told;
  VmOptions options = context.options();
  told.attachTo(options);
  const std::string path = context.file("text", std::string(4096, 'x'));
  errorOf("a kernel that is none", [&]() {
    get(context.host().start(R"({"boot":{"kernel":")" + path + R"("},"memory":{"size":"32M"}})", options), "starting");
  });
  checkEqual(told.states(), "stopping ended", "what was told");
}

void destroyedHandleIsTold(Context& context) {
  Told told;
  VmOptions options = context.options();
  told.attachTo(options);
  context.start({}, options).reset();
  checkEqual(told.states(), "created running stopping ended", "what was told");
}

void watcherFromTheStart(Context& context) {
  SupervisedVm vm(context, {.guest = "poweroff"});
  Changes changes;
  vm.watch(vm.starter(), changes);
  vm.wait();
  context.work(std::chrono::milliseconds(1));
  // Whoever asks early is told of every change; the machine may have been faster than the question.
  const std::string all = "created running stopping ended";
  const std::string seen = statesOf(changes);
  check(!seen.empty() && all.size() >= seen.size() && all.substr(all.size() - seen.size()) == seen,
        "what was told is \"" + seen + "\", not the end of \"" + all + '"');
}

void watcherOfVerbs(Context& context) {
  SupervisedVm vm(context, {});
  vm.awaitRunning();
  auto other = vm.connect();
  Changes changes;
  vm.watch(*other, changes);
  for (int round = 0; round < 2; ++round) {
    context.await(vm.starter().pause(kPatience), "pausing");
    context.await(vm.starter().pause(kPatience), "pausing again");
    context.await(vm.starter().resume(kPatience), "resuming");
  }
  vm.stop("enough");
  context.await(other->wait().ignoreResult(), "the other client's wait");
  checkEqual(statesOf(changes), "paused running paused running stopping ended", "what was told");
  checkEqual(changes[4].second, "enough", "the reason told with stopping");
}

void watchersAllHearTheSame(Context& context) {
  SupervisedVm vm(context, {});
  vm.awaitRunning();
  auto one = vm.connect();
  auto two = vm.connect();
  Changes first;
  Changes second;
  Changes again;
  vm.watch(*one, first);
  vm.watch(*two, second);
  vm.watch(*two, again);
  vm.stop();
  context.await(one->wait().ignoreResult(), "the first client's wait");
  context.await(two->wait().ignoreResult(), "the second client's wait");
  checkEqual(statesOf(first), "stopping ended", "what the first was told");
  checkEqual(statesOf(second), "stopping ended", "what the second was told");
  checkEqual(statesOf(again), "stopping ended", "what the second's other watcher was told");
}

void watcherGoesAway(Context& context) {
  SupervisedVm vm(context, {});
  vm.awaitRunning();
  Changes lost;
  Changes kept;
  auto leaving = vm.connect();
  vm.watch(*leaving, lost);
  vm.watch(vm.starter(), kept);
  leaving.reset();
  context.await(vm.starter().pause(kPatience), "pausing");
  vm.stop();
  checkEqual(statesOf(kept), "paused stopping ended", "what the one that stayed was told");
  check(lost.empty(), "a watcher that had gone was told something");
}

void watchersAreBounded(Context& context) {
  constexpr int kMost = 8;
  SupervisedVm vm(context, {});
  vm.awaitRunning();
  std::vector<Changes> changes(kMost + 1);
  for (int index = 0; index < kMost; ++index) {
    vm.watch(vm.starter(), changes[static_cast<std::size_t>(index)]);
  }
  refused(ErrorCode::kResourceExhausted, {"watch"}, "watching for the ninth time",
          [&]() { vm.watch(vm.starter(), changes[kMost]); });
  vm.stop();
  for (int index = 0; index < kMost; ++index) {
    checkEqual(statesOf(changes[static_cast<std::size_t>(index)]), "stopping ended", "what a watcher was told");
  }
}

}  // namespace

void addEventCases(Cases& cases) {
  const std::vector<std::string> pvh = {VMMHOST_CAP_BOOT_PVH};
  const std::vector<std::string> pause = {VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_PAUSE};
  cases.push_back({"events.guest-that-powers-off", pvh, powerOffIsTold});
  cases.push_back({"events.stop-with-its-reason", pvh, stopIsTold});
  cases.push_back({"events.each-pause-and-resume-once", pause, pausesAreTold});
  cases.push_back({"events.reset-changes-no-state", {VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_RESET}, resetIsNoChange});
  cases.push_back({"events.failed-start", {}, failedStartIsTold});
  cases.push_back({"events.destroyed-handle", pvh, destroyedHandleIsTold});
  cases.push_back({"events.watcher-from-the-start", pvh, watcherFromTheStart});
  cases.push_back({"events.watcher-hears-verbs-of-others", pause, watcherOfVerbs});
  cases.push_back({"events.watchers-all-hear-the-same", pvh, watchersAllHearTheSame});
  cases.push_back({"events.watcher-that-goes-away", pause, watcherGoesAway});
  cases.push_back({"events.watchers-are-bounded", pvh, watchersAreBounded});
}

}  // namespace vmmhost::conformance
