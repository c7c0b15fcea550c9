// vmmhost shutdown: asks the guest to power off.
#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "host/cli/base/exit_codes.h"
#include "host/cli/base/output.h"
#include "host/cli/base/vm_access.h"
#include "host/cli/verbs/results.h"
#include "host/cli/verbs/shared_usage.h"
#include "host/cli/verbs/verbs.h"

namespace vmmhost::cli {

namespace {

struct ShutdownOptions {
  std::string name;
  std::optional<std::string> timeoutSeconds;
  bool json = false;
};

// With a time limit waits for the VM's end, and forces it when the time is over.
int shutdown(const ShutdownOptions& options) {
  auto io = kj::setupAsyncIo();
  const auto directories = openDirectories();
  const auto client = connectTo(io, directories, options.name);
  if (!options.timeoutSeconds) {
    client::await(io, client->shutdown());
    printDone(options.name, "asked", options.json);
    return kExitOk;
  }
  const auto limit = std::chrono::milliseconds(parseSeconds("--timeout", *options.timeoutSeconds));
  auto ended = client->wait();
  // A guest that cannot be asked is ended when the time is over as well: at once, there is nothing to wait for.
  bool asked = true;
  try {
    client::await(io, client->shutdown());
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kUnsupported) {
      throw;
    }
    note(error.message() + "; ending it by force");
    asked = false;
  }
  if (asked) {
    try {
      const auto response =
          client::await(io, rpc::withDeadline(io.provider->getTimer(), limit, "powering off", kj::mv(ended)));
      printOutcome(options.name, response.getOutcome(), options.json);
      return kExitOk;
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kDeadlineExceeded) {
        throw;
      }
      note("VM " + options.name + " did not power off within " + *options.timeoutSeconds + " s; ending it by force");
    }
  }
  const auto response = client::await(io, client->stop(schema::EndKind::STOPPED, "shutdown took too long"));
  printOutcome(options.name, response.getOutcome(), options.json);
  return kExitOk;
}

Usage usage() {
  const auto options = std::make_shared<ShutdownOptions>();
  return {
      .arguments = {liveVmArgument(options->name)},
      .options = {jsonOption(options->json),
                  {"--timeout", kSeconds, "Wait this long for the guest to power off, then end it by force",
                   &options->timeoutSeconds}},
      .carryOut = [options]() { return shutdown(*options); },
  };
}

}  // namespace

const Verb kShutdownVerb = {"shutdown", "Ask the guest to power off", usage};

}  // namespace vmmhost::cli
