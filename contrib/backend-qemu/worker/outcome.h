// From what QEMU says and how it ends to why the machine ended: a small state without any I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "vmmhost/schema/worker.capnp.h"
#include "worker/qmp_message.h"

namespace qemubackend {

struct Outcome {
  vmmhost::schema::EndCause cause = vmmhost::schema::EndCause::UNKNOWN;
  std::string detail;
};

// How the process went, as wait tells it.
struct ProcessEnd {
  enum class Kind { kExited, kSignalled, kUnknown };
  Kind kind = Kind::kUnknown;
  int value = 0;  // exit code or signal number
};

inline constexpr const char* kWatchdogRanOut = "the guest did not reload its watchdog in time";

// The disk whose file the host has no room for, if that is what an event tells.
std::optional<std::uint32_t> fullDisk(const QmpMessage& event);

class OutcomeTracker {
 public:
  // What an event asks for.
  enum class Next {
    kNothing,
    kAwaitExit,  // QEMU is on its way out
    kAskStatus,  // it stopped without being asked: query-status tells why
    kWatchdog,   // the guest's watchdog has run out, and the virtual CPUs stop
  };
  Next note(const QmpMessage& event);
  // A stop of ours is under way: a STOP event is no news.
  void expectStop() { stopExpected_ = true; }
  void stopDone() { stopExpected_ = false; }
  // The run state after an unexpected STOP. True if the machine has ended by it.
  bool noteStatus(const std::string& status);
  // The watchdog has run out and that ends the machine.
  void noteWatchdog();
  // A fault in the talk with QEMU; the first one counts, and only if nothing else ended the machine.
  void noteFault(std::string detail);
  bool ended() const { return outcome_.has_value(); }

  // `lastLines` is what QEMU said last on its standard error.
  Outcome finish(const ProcessEnd& end, const std::string& lastLines) const;

 private:
  std::optional<Outcome> outcome_;
  std::string fault_;
  bool stopExpected_ = false;
};

}  // namespace qemubackend
