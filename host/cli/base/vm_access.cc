#include "host/cli/base/vm_access.h"

#include <charconv>
#include <chrono>
#include <cmath>

#include "host/base/text.h"
#include "host/config/json.h"
#include "host/config/vm_config.h"

namespace vmmhost::cli {

namespace {

// How long a supervisor may be starting or ending when it is asked for something.
constexpr std::chrono::milliseconds kStartOrEnd{2000};

Error endedError(const std::string& name) {
  return Error(ErrorCode::kFailedPrecondition, "VM " + name + " has ended",
               "`vmmhost logs " + name + "` shows what it said, `vmmhost rm " + name + "` removes it");
}

}  // namespace

runtime::Directories openDirectories() {
  return runtime::Directories::open(runtime::Directories::defaultPaths());
}

std::unique_ptr<client::ControlClient> connectTo(kj::AsyncIoContext& io, const runtime::Directories& directories,
                                                 const std::string& name) {
  config::validateVmName(name);
  if (!runtime::find(directories, runtime::vmName(name)).alive) {
    throw endedError(name);
  }
  try {
    auto client = std::make_unique<client::ControlClient>(
        io, runtime::awaitControl(directories, runtime::vmName(name), kStartOrEnd), name);
    client::await(io, client->hello());
    return client;
  } catch (const Error& error) {
    // It may have ended since it was looked at.
    if ((error.code() == ErrorCode::kSupervisorDied || error.code() == ErrorCode::kUnavailable) &&
        hasEnded(directories, name)) {
      throw endedError(name);
    }
    throw;
  }
}

bool hasEnded(const runtime::Directories& directories, const std::string& name) {
  try {
    return !runtime::find(directories, runtime::vmName(name)).alive;
  } catch (const Error& error) {
    return error.code() == ErrorCode::kNotFound;  // it has removed itself
  }
}

void clearAway(const std::string& name) {
  try {
    const auto directories = openDirectories();
    if (name.empty()) {
      runtime::list(directories, runtime::Kind::kVm);
    } else {
      runtime::find(directories, runtime::vmName(name));
    }
  } catch (const Error&) {
    // Nothing was left, or somebody else is clearing it away.
  }
}

EndedVm::EndedVm(const runtime::Entry& entry) : info_(message_.initRoot<schema::VmInfo>()) {
  const std::string source = entry.name.text + "/exit.json";
  const std::string text = entry.exitJson.value_or("");
  try {
    config::parseJson(source, text, info_);
    known_ = info_.hasOutcome();
  } catch (const Error&) {
    info_ = message_.initRoot<schema::VmInfo>();
    try {
      config::parseJson(source, text, info_.initOutcome());
      known_ = true;
    } catch (const Error&) {
      info_ = message_.initRoot<schema::VmInfo>();
    }
  }
  info_.setName(entry.name.text);
  info_.setState(schema::VmState::ENDED);
}

std::uint32_t parseNumber(const char* subject, const char* expected, const std::string& text) {
  std::uint32_t number = 0;
  const char* end = text.data() + text.size();
  const auto [stop, code] = std::from_chars(text.data(), end, number);
  if (code != std::errc() || stop != end) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string(subject) + ": expected " + expected + ", found " + inQuotes(text));
  }
  return number;
}

std::uint32_t parseConsole(const char* flag, const std::optional<std::string>& text) {
  return text ? parseNumber(flag, "the number of a console, of which the first is 0", *text) : 0;
}

std::uint64_t parseSeconds(const char* flag, const std::string& text) {
  double seconds = 0;
  const char* end = text.data() + text.size();
  const auto [stop, code] = std::from_chars(text.data(), end, seconds, std::chars_format::fixed);
  constexpr double kMost = 1e9;
  if (code != std::errc() || stop != end || !(seconds > 0) || seconds > kMost) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string(flag) + ": expected a number of seconds above 0, found " + inQuotes(text));
  }
  return std::max<std::uint64_t>(1, static_cast<std::uint64_t>(std::llround(seconds * 1000)));
}

}  // namespace vmmhost::cli
