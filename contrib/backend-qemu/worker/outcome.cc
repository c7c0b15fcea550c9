#include "worker/outcome.h"

#include <cerrno>
#include <charconv>
#include <cstring>
#include <string_view>

#include "worker/command_line.h"

namespace qemubackend {

using vmmhost::schema::EndCause;

std::optional<std::uint32_t> fullDisk(const QmpMessage& event) {
  // The member `nospace` is there only where the machine may be stopped for it; the text is the C library's, in its own
  // language: QEMU sets no locale.
  if (event.name != "BLOCK_IO_ERROR" ||
      (event.reason != ::strerrordesc_np(ENOSPC) && event.reason != ::strerrordesc_np(EDQUOT))) {
    return std::nullopt;
  }
  std::uint32_t index = 0;
  const std::string_view prefix = kDiskNode;
  const std::string_view node = event.node;
  if (!node.starts_with(prefix)) {
    return std::nullopt;
  }
  const char* const end = node.data() + node.size();
  const auto [stop, error] = std::from_chars(node.data() + prefix.size(), end, index);
  return error == std::errc() && stop == end ? std::optional(index) : std::nullopt;
}

OutcomeTracker::Next OutcomeTracker::note(const QmpMessage& event) {
  if (event.name == "GUEST_PANICKED") {
    if (!outcome_) {
      outcome_ = Outcome{EndCause::PANIC, "the guest reported a panic"};
    }
    return Next::kNothing;  // -action panic=shutdown: SHUTDOWN follows
  }
  if (event.name == "SHUTDOWN") {
    if (!outcome_) {
      if (event.reason == "guest-shutdown") {
        outcome_ = Outcome{EndCause::POWER_OFF, "the guest powered off"};
      } else if (event.reason == "guest-reset") {
        // QEMU resets the machine on a triple fault and does not tell the two apart.
        outcome_ = Outcome{EndCause::RESET, "the guest asked for a reset, or faulted three times"};
      } else if (event.reason == "guest-panic") {
        outcome_ = Outcome{EndCause::PANIC, "the guest reported a panic"};
      } else {
        outcome_ = Outcome{EndCause::WORKER_FAULT, "QEMU shut down: " + event.reason};
      }
    }
    return Next::kAwaitExit;
  }
  if (event.name == "WATCHDOG" && !outcome_) {
    return Next::kWatchdog;
  }
  if (event.name == "STOP" && !stopExpected_ && !outcome_) {
    return Next::kAskStatus;
  }
  return Next::kNothing;
}

bool OutcomeTracker::noteStatus(const std::string& status) {
  if (!outcome_) {
    if (status == "internal-error") {
      outcome_ = Outcome{EndCause::CRASH, "QEMU cannot go on: run state internal-error"};
    } else if (status == "io-error") {  // no disk is told to stop the machine; one that does all the same ends it
      outcome_ = Outcome{EndCause::CRASH, "a disk failed: run state io-error"};
    } else if (status == "guest-panicked") {
      outcome_ = Outcome{EndCause::PANIC, "the guest reported a panic"};
    }
  }
  return outcome_.has_value();
}

void OutcomeTracker::noteWatchdog() {
  if (!outcome_) {
    outcome_ = Outcome{EndCause::WATCHDOG, kWatchdogRanOut};
  }
}

void OutcomeTracker::noteFault(std::string detail) {
  if (fault_.empty()) {
    fault_ = std::move(detail);
  }
}

Outcome OutcomeTracker::finish(const ProcessEnd& end, const std::string& lastLines) const {
  const auto withLines = [&](const std::string& text) {
    return lastLines.empty() ? text : text + "; it said: " + lastLines;
  };
  if (outcome_) {
    return outcome_->cause == EndCause::CRASH || outcome_->cause == EndCause::WORKER_FAULT
               ? Outcome{outcome_->cause, withLines(outcome_->detail)}
               : *outcome_;
  }
  if (!fault_.empty()) {
    return {EndCause::WORKER_FAULT, withLines(fault_)};
  }
  switch (end.kind) {
    case ProcessEnd::Kind::kExited:
      return {EndCause::WORKER_FAULT, withLines("QEMU exited with code " + std::to_string(end.value))};
    case ProcessEnd::Kind::kSignalled: {
      const char* name = ::sigabbrev_np(end.value);
      return {EndCause::WORKER_FAULT,
              withLines("QEMU was ended by signal " +
                        (name != nullptr ? "SIG" + std::string(name) : std::to_string(end.value)))};
    }
    case ProcessEnd::Kind::kUnknown:
      break;
  }
  return {EndCause::WORKER_FAULT, withLines("QEMU ended; how is unknown")};
}

}  // namespace qemubackend
