// vmmhost console: a further client of a VM's console.
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "host/cli/base/exit_codes.h"
#include "host/cli/base/output.h"
#include "host/cli/base/vm_access.h"
#include "host/cli/terminal/attachment.h"
#include "host/cli/verbs/run_report.h"
#include "host/cli/verbs/shared_usage.h"
#include "host/cli/verbs/verbs.h"
#include "host/config/json_writer.h"

namespace vmmhost::cli {

namespace {

struct ConsoleOptions {
  std::string name;
  std::optional<std::string> port;
  bool json = false;
};

constexpr std::uint32_t kReplayBytes = 16384;  // what is shown of the past

int console(const ConsoleOptions& options) {
  const std::string& name = options.name;
  const std::uint32_t port = parseConsole("--port", options.port);
  auto io = kj::setupAsyncIo();
  const auto directories = openDirectories();
  const auto client = connectTo(io, directories, name);
  Attachment attachment(io, *client, {options.json ? STDERR_FILENO : STDOUT_FILENO, kReplayBytes, port, true});
  const ForegroundEvent event = attachment.follow(kj::READY_NOW);
  if (event.kind == ForegroundEvent::Kind::kKill) {
    attachment.stop(schema::EndKind::STOPPED, "killed from its console");
  }
  attachment.release();
  switch (event.kind) {
    case ForegroundEvent::Kind::kDetach:
      note("detached from " + name);
      break;
    case ForegroundEvent::Kind::kSignal:
      return kExitSignalBase + event.signal;  // the VM does not depend on this command
    case ForegroundEvent::Kind::kOutputGone:
      note(attachment.outputFailure());
      return kExitFailed;
    default:
      if (!options.json) {
        note("VM " + name + ": " + describeOutcome(attachment.outcome()));
      }
  }
  if (options.json) {
    config::JsonWriter writer;
    writer.beginObject().member("name", name).member("detached", event.kind == ForegroundEvent::Kind::kDetach);
    if (event.kind != ForegroundEvent::Kind::kDetach) {
      writer.key("outcome").raw(outcomeJson(attachment.outcome()));
    }
    print(writer.endObject().str() + '\n');
  }
  return kExitOk;
}

Usage usage() {
  const auto options = std::make_shared<ConsoleOptions>();
  return {
      .arguments = {liveVmArgument(options->name)},
      .options = {portOption(options->port), jsonOption(options->json)},
      .notes = "^] opens a menu: detach, kill, cancel. Ends with the VM.",
      .carryOut = [options]() { return console(*options); },
  };
}

}  // namespace

const Verb kConsoleVerb = {"console", "Attach to a VM's console", usage};

}  // namespace vmmhost::cli
