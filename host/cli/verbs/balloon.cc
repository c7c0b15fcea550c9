// vmmhost balloon: how much memory the guest gives up.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "host/cli/base/exit_codes.h"
#include "host/cli/base/output.h"
#include "host/cli/base/vm_access.h"
#include "host/cli/verbs/shared_usage.h"
#include "host/cli/verbs/verbs.h"
#include "host/config/json.h"
#include "host/config/json_writer.h"

namespace vmmhost::cli {

namespace {

struct BalloonOptions {
  std::string name;
  std::optional<std::string> size;  // to set
  bool json = false;
};

int balloon(const BalloonOptions& options) {
  std::optional<std::uint64_t> size;
  if (options.size) {
    size = config::parseByteSize("size", *options.size);
  }
  auto io = kj::setupAsyncIo();
  const auto directories = openDirectories();
  const auto client = connectTo(io, directories, options.name);
  if (size) {
    client::await(io, client->setBalloon(*size));
  }
  const auto state = client::await(io, client->balloon());
  if (options.json) {
    config::JsonWriter writer;
    writer.beginObject().member("name", options.name).member("target", state.getTarget());
    printLine(writer.member("actual", state.getActual()).endObject().str());
  } else {
    printLine("target " + formatBytes(state.getTarget()) + ", actual " + formatBytes(state.getActual()));
  }
  return kExitOk;
}

Usage usage() {
  const auto options = std::make_shared<BalloonOptions>();
  return {
      .arguments = {liveVmArgument(options->name),
                    {"size", kSize, "Memory that the guest is to give up, such as 512M", &options->size}},
      .options = {jsonOption(options->json)},
      .notes = "Shows what the guest was asked to give up and what it has given up so far.",
      .carryOut = [options]() { return balloon(*options); },
  };
}

}  // namespace

const Verb kBalloonVerb = {"balloon", "Show or set how much memory the guest gives up", usage};

}  // namespace vmmhost::cli
