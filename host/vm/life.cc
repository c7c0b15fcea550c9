#include "host/vm/life.h"

#include <iterator>

#include "host/base/clock.h"

namespace vmmhost::vm {

using schema::VmState;

const char* Life::stateName() const {
  switch (state_) {
    case VmState::PREPARING:
      return "being prepared";
    case VmState::CREATED:
      return "created";
    case VmState::RUNNING:
      return "running";
    case VmState::PAUSED:
      return "paused";
    case VmState::STOPPING:
      return "stopping";
    case VmState::ENDED:
      return "ended";
  }
  return "in an unknown state";
}

void Life::setState(VmState state, const std::string& detail) {
  if (state == state_) {
    return;
  }
  state_ = state;
  log_.write(Severity::kInfo, "vm", stateName() + (detail.empty() ? "" : ": " + detail));
  for (auto next = watchers_.begin(); next != watchers_.end();) {
    const auto current = next++;
    (*current)(state, unixMilliseconds(), detail);
  }
}

void Life::noteStart() {
  startedUnixMs_ = unixMilliseconds();
}

void Life::noteEnd() {
  endedUnixMs_ = unixMilliseconds();
}

void Life::mark(const char* phase) {
  timings_.emplace_back(phase, monotonicNanoseconds());
}

Life::Watch::~Watch() {
  if (list != nullptr) {
    list->erase(position);
  }
}

std::unique_ptr<Life::Watch> Life::watch(Watcher watcher) {
  auto watch = std::make_unique<Watch>();
  watchers_.push_back(std::move(watcher));
  watch->list = &watchers_;
  watch->position = std::prev(watchers_.end());
  return watch;
}

}  // namespace vmmhost::vm
