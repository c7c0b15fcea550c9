#include "host/cli/base/output.h"

#include <capnp/schema.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "host/base/text.h"
#include "host/cli/base/exit_codes.h"

namespace vmmhost::cli {

namespace {

// Returns 0 or an errno value.
int writeAll(int fd, std::string_view text) noexcept {
  while (!text.empty()) {
    const ssize_t count = ::write(fd, text.data(), text.size());
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return errno;
    }
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  return 0;
}

template <typename Enum>
std::string enumName(Enum value) {
  const auto enumerants = capnp::Schema::from<Enum>().getEnumerants();
  const auto index = static_cast<unsigned>(value);
  return index < enumerants.size() ? std::string(enumerants[index].getProto().getName().cStr()) : std::to_string(index);
}

constexpr std::size_t kMaxShownBytes = 2048;

}  // namespace

std::string_view view(capnp::Text::Reader text) {
  return {text.begin(), text.size()};
}

void print(std::string_view text) {
  if (const int code = writeAll(STDOUT_FILENO, text); code != 0) {
    throw systemError("writing to standard output", code);
  }
}

void printLine(std::string_view line) {
  print(std::string(line) + '\n');
}

void note(std::string_view message) noexcept {
  try {
    writeAll(STDERR_FILENO, "vmmhost: " + printable(message, kMaxShownBytes) + '\n');
  } catch (const std::exception&) {
    // Out of memory: nothing can be said any more.
  }
}

void noteBlock(std::string_view text) noexcept {
  writeAll(STDERR_FILENO, text);
}

void writeErrorObject(config::JsonWriter& json, const Error& error) {
  // Scripts know a supervisor that is gone by the code that it had before it had one of its own.
  const bool isGone = error.code() == ErrorCode::kSupervisorDied;
  json.beginObject()
      .member("code", errorCodeName(isGone ? ErrorCode::kWorkerDied : error.code()))
      .member("message", error.message())
      .member("hint", error.hint())
      .member("retryable", error.retryable());
  if (!error.field().empty()) {
    json.member("field", error.field());
  }
  json.endObject();
}

int report(const Error& error, bool json) noexcept {
  try {
    if (json) {
      config::JsonWriter writer;
      writer.beginObject().key("error");
      writeErrorObject(writer, error);
      writer.endObject();
      writeAll(STDOUT_FILENO, writer.str() + '\n');
    } else {
      note(error.message());
      if (!error.hint().empty()) {
        writeAll(STDERR_FILENO, "hint: " + printable(error.hint(), kMaxShownBytes) + '\n');
      }
    }
  } catch (const std::exception&) {
    // As above.
  }
  return exitCodeOf(error.code());
}

std::string Table::str() const {
  std::vector<std::size_t> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t column = 0; column < row.size(); ++column) {
      widths[column] = std::max(widths[column], row[column].size());
    }
  }
  std::string text;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t column = 0; column < row.size(); ++column) {
      line += row[column];
      line.append(widths[column] - row[column].size() + 2, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  }
  return text;
}

std::string formatBytes(std::uint64_t bytes) {
  constexpr const char* kUnits[] = {"", "K", "M", "G", "T", "P", "E"};
  unsigned unit = 0;
  std::uint64_t scale = 1;
  while (bytes / scale >= 1024) {
    scale <<= 10;
    ++unit;
  }
  if (bytes % scale == 0) {
    return std::to_string(bytes / scale) + kUnits[unit];
  }
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.1f%s", static_cast<double>(bytes) / static_cast<double>(scale), kUnits[unit]);
  return buffer;
}

std::string formatSeconds(std::int64_t seconds) {
  const std::int64_t total = std::max<std::int64_t>(seconds, 0);
  char buffer[48];
  if (total < 60) {
    std::snprintf(buffer, sizeof buffer, "%llds", static_cast<long long>(total));
  } else if (total < 3600) {
    std::snprintf(buffer, sizeof buffer, "%lldm%02llds", static_cast<long long>(total / 60),
                  static_cast<long long>(total % 60));
  } else if (total < 86400) {
    std::snprintf(buffer, sizeof buffer, "%lldh%02lldm", static_cast<long long>(total / 3600),
                  static_cast<long long>(total / 60 % 60));
  } else {
    std::snprintf(buffer, sizeof buffer, "%lldd%02lldh", static_cast<long long>(total / 86400),
                  static_cast<long long>(total / 3600 % 24));
  }
  return buffer;
}

std::string formatNs(std::uint64_t ns) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.2f", static_cast<double>(ns) / 1e6);
  return buffer;
}

std::string stateName(schema::VmState state) {
  return enumName(state);
}
std::string endKindName(schema::EndKind kind) {
  return enumName(kind);
}
std::string endCauseName(schema::EndCause cause) {
  return enumName(cause);
}

namespace {

std::string causeText(schema::EndCause cause) {
  switch (cause) {
    case schema::EndCause::POWER_OFF:
      return "powered off";
    case schema::EndCause::RESET:
      return "asked for a reset";
    case schema::EndCause::TRIPLE_FAULT:
      return "triple fault";
    case schema::EndCause::CRASH:
      return "crashed";
    case schema::EndCause::PANIC:
      return "panicked";
    case schema::EndCause::WATCHDOG:
      return "ended by its watchdog";
    case schema::EndCause::WORKER_FAULT:
      return "worker fault";
    default:
      return "ended, cause unknown";
  }
}

std::string kindText(schema::Outcome::Reader outcome) {
  switch (outcome.getKind()) {
    case schema::EndKind::GUEST:
      return causeText(outcome.getCause());
    case schema::EndKind::STOPPED:
      return "stopped";
    case schema::EndKind::TIMEOUT:
      return "timed out";
    case schema::EndKind::SIGNALLED:
      return "ended by a signal to the command";
    case schema::EndKind::CLIENT_GONE:
      return "command gone";
    case schema::EndKind::WORKER_DIED:
      return "worker died";
    case schema::EndKind::START_FAILED:
      return "did not start";
    case schema::EndKind::SUPERVISOR_DIED:
      return "supervisor died";
    default:
      return "ended, kind " + endKindName(outcome.getKind());
  }
}

std::string exitText(schema::Outcome::WorkerExit::Reader exit) {
  switch (exit.which()) {
    case schema::Outcome::WorkerExit::CODE:
      return "exit code " + std::to_string(exit.getCode());
    case schema::Outcome::WorkerExit::SIGNAL:
      return "signal " + std::to_string(exit.getSignal());
    default:
      return "cause unknown";
  }
}

}  // namespace

std::string describeOutcome(schema::Outcome::Reader outcome) {
  std::string text = kindText(outcome);
  if (outcome.getKind() == schema::EndKind::GUEST &&
      (outcome.getCause() == schema::EndCause::POWER_OFF || outcome.getCause() == schema::EndCause::RESET)) {
    return text;  // the detail says the same
  }
  std::string detail(view(outcome.getDetail()));
  if (detail.empty() && outcome.getKind() == schema::EndKind::WORKER_DIED) {
    detail = exitText(outcome.getWorkerExit());
  }
  if (detail.empty() && outcome.hasError()) {
    detail = view(outcome.getError().getMessage());
  }
  return text + (detail.empty() ? "" : ": " + printable(detail, 512));
}

}  // namespace vmmhost::cli
