#include "tests/fake/fault.h"

#include <array>
#include <charconv>
#include <optional>
#include <span>

namespace vmmhost::fake {
namespace {

constexpr std::array<const char*, 13> kMoments = {
    "constructor", "before-hello", "hello",  "confirm", "attach", "create",      "start",
    "running",     "pause",        "resume", "reset",   "press",  "after-ended",
};

// At which moments an action means something.
enum class Where {
  kAnywhere,
  kCalls,  // something is to be answered
  kEnd,    // kCalls, and after the end
  kEvents  // the host has given the worker something to send events to
};

struct Kind {
  std::string_view name;
  Where where;
  std::array<std::string_view, 4> arguments;  // the first one stands for none
};

// In the order of Action.
constexpr std::array<Kind, 12> kKinds = {{
    {"exit", Where::kAnywhere, {}},
    {"die", Where::kAnywhere, {"segv", "abort", "trap", "syscall"}},
    {"silent", Where::kAnywhere, {}},
    {"slow", Where::kAnywhere, {}},
    {"nonsense", Where::kAnywhere, {}},
    {"half", Where::kAnywhere, {}},
    {"close", Where::kAnywhere, {}},
    {"flood", Where::kAnywhere, {"log", "events", "calls", "ends"}},
    {"twice", Where::kEnd, {}},
    {"lie", Where::kEvents, {"order", "cause"}},
    {"grow", Where::kAnywhere, {}},
    {"error", Where::kCalls, {}},
}};
constexpr std::uint32_t kDefaultExitCode = 7;
constexpr std::uint32_t kMaxSlowMs = 600'000;

bool isCall(Moment moment) {
  return moment >= Moment::kHello && moment <= Moment::kPress && moment != Moment::kRunning;
}

bool fits(Where where, Moment moment) {
  switch (where) {
    case Where::kCalls:
      return isCall(moment);
    case Where::kEnd:
      return isCall(moment) || moment == Moment::kAfterEnded;
    case Where::kEvents:
      return moment >= Moment::kCreate;
    case Where::kAnywhere:
      break;
  }
  return true;
}

std::optional<std::uint32_t> parseNumber(std::string_view text, std::uint32_t most) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || value > most) {
    return std::nullopt;
  }
  return value;
}

// Fills in what stands between the action and the moment; `text` is null when nothing does.
const char* parseArgument(const Kind& kind, std::optional<std::string_view> text, Fault& fault) {
  if (fault.action == Action::kExit) {
    const auto code = text ? parseNumber(*text, 255) : kDefaultExitCode;
    fault.number = code.value_or(0);
    return code ? nullptr : "the exit code is no number from 0 to 255";
  }
  if (fault.action == Action::kSlow) {
    const auto delay = text ? parseNumber(*text, kMaxSlowMs) : std::nullopt;
    fault.number = delay.value_or(0);
    return delay ? nullptr : "slow needs a number of milliseconds, at most 600000";
  }
  fault.argument = kind.arguments.front();
  if (!text) {
    return nullptr;
  }
  for (const std::string_view known : kind.arguments) {
    if (!known.empty() && known == *text) {
      fault.argument = known;
      return nullptr;
    }
  }
  return "the action does not know this argument";
}

}  // namespace

ParsedFault parseFault(std::string_view text) noexcept {
  const std::size_t first = text.find(':');
  const std::size_t last = text.rfind(':');
  if (first == std::string_view::npos) {
    return {{}, "not of the form ACTION:MOMENT"};
  }
  ParsedFault parsed;
  const std::string_view action = text.substr(0, first);
  const std::string_view moment = text.substr(last + 1);
  const Kind* kind = nullptr;
  for (std::size_t index = 0; index < kKinds.size(); ++index) {
    if (kKinds[index].name == action) {
      kind = &kKinds[index];
      parsed.fault.action = static_cast<Action>(index);
    }
  }
  bool isMoment = false;
  for (std::size_t index = 0; index < kMoments.size(); ++index) {
    if (kMoments[index] == moment) {
      isMoment = true;
      parsed.fault.moment = static_cast<Moment>(index);
    }
  }
  if (kind == nullptr || !isMoment) {
    return {{}, kind == nullptr ? "no such action" : "no such moment"};
  }
  const auto argument = first == last ? std::nullopt : std::optional(text.substr(first + 1, last - first - 1));
  parsed.wrong = parseArgument(*kind, argument, parsed.fault);
  const bool isOfEvents = parsed.fault.action == Action::kFlood && parsed.fault.argument != "log";
  const Where where = isOfEvents ? Where::kEvents : kind->where;
  if (parsed.wrong == nullptr && !fits(where, parsed.fault.moment)) {
    parsed.wrong = "the action means nothing at this moment";
  }
  return parsed;
}

const char* momentName(Moment moment) noexcept {
  return kMoments[static_cast<std::size_t>(moment)];
}

}  // namespace vmmhost::fake
