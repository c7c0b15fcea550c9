#include "host/cli/vm_access.h"

#include <charconv>
#include <cmath>

#include "host/config/json.h"
#include "host/config/text.h"
#include "host/config/vm_config.h"

namespace vmmhost::cli {

runtime::Directories openDirectories() {
  return runtime::Directories::open(runtime::Directories::defaultPaths());
}

std::unique_ptr<client::ControlClient> connectTo(kj::AsyncIoContext& io, const runtime::Directories& directories,
                                                 const std::string& name) {
  config::validateVmName(name);
  if (!runtime::find(directories, name).alive) {
    throw Error(ErrorCode::kFailedPrecondition, "VM " + name + " has ended",
                "`vmmhost logs " + name + "` shows what it said, `vmmhost rm " + name + "` removes it");
  }
  auto client = std::make_unique<client::ControlClient>(io, runtime::connectControl(directories, name), name);
  client::await(io, client->hello());
  return client;
}

bool readOutcome(const runtime::Entry& entry, schema::Outcome::Builder into) {
  if (!entry.exitJson) {
    return false;
  }
  try {
    config::parseJson(entry.name + "/exit.json", *entry.exitJson, into);
    return true;
  } catch (const Error&) {
    return false;
  }
}

std::uint64_t parseSeconds(const char* flag, const std::string& text) {
  double seconds = 0;
  const char* end = text.data() + text.size();
  const auto [stop, code] = std::from_chars(text.data(), end, seconds, std::chars_format::fixed);
  constexpr double kMost = 1e9;
  if (code != std::errc() || stop != end || !(seconds > 0) || seconds > kMost) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string(flag) + ": expected a number of seconds above 0, found " + config::inQuotes(text));
  }
  return std::max<std::uint64_t>(1, static_cast<std::uint64_t>(std::llround(seconds * 1000)));
}

}  // namespace vmmhost::cli
