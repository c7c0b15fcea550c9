// Faults by name: "fault=ACTION[:ARGUMENT]:MOMENT" on the guest's command line, "ACTION[:ARGUMENT]:MOMENT" on the
// worker's. Parsing allocates nothing: a static constructor does it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace vmmhost::fake {

// When the fault is. From hello to press: when the call arrives, before it is carried out.
enum class Moment {
  kConstructor,  // before main
  kBeforeHello,  // in main, before anything is read
  kHello,
  kConfirm,
  kAttach,  // the first one
  kCreate,
  kStart,
  kRunning,  // start was answered
  kPause,
  kResume,
  kReset,
  kPress,
  kAfterEnded,  // the end was reported
};

enum class Action {
  kExit,      // exit:CODE, 0 to 255; 7 when not given
  kDie,       // die:segv, die:abort, die:trap (SIGILL), die:syscall (one that the jail forbids)
  kSilent,    // never answers: a call waits for ever, elsewhere the thread does
  kSlow,      // slow:MS, at most 600000: answers that much later
  kNonsense,  // random bytes on the RPC socket, then goes on
  kHalf,      // half a message on it, then nothing more; lives
  kClose,     // shuts the socket down; lives
  kFlood,     // flood:log (also when not given), flood:events, flood:calls, flood:ends; then goes on
  kTwice,     // answers a call twice; at after-ended: reports the end twice
  kLie,       // lie:order or lie:cause: events that make no sense
  kGrow,      // takes memory until there is no more, then exits with 9
  kError,     // an error with all four fields
};

struct Fault {
  Action action = Action::kExit;
  Moment moment = Moment::kConstructor;
  std::uint32_t number = 0;   // exit: the code; slow: milliseconds
  std::string_view argument;  // die, flood, lie: as given, or the one that stands for none; static
};

struct ParsedFault {
  Fault fault;
  const char* wrong = nullptr;  // why there is none; static
};

// `text` without the leading "fault=".
ParsedFault parseFault(std::string_view text) noexcept;

const char* momentName(Moment moment) noexcept;

}  // namespace vmmhost::fake
