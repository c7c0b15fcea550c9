// vmmhost wait: waits for VMs to end.
#include <memory>
#include <string>
#include <vector>

#include "host/cli/base/exit_codes.h"
#include "host/cli/base/output.h"
#include "host/cli/base/vm_access.h"
#include "host/cli/verbs/run_report.h"
#include "host/cli/verbs/shared_usage.h"
#include "host/cli/verbs/verbs.h"
#include "host/config/json_writer.h"
#include "host/config/vm_config.h"

namespace vmmhost::cli {

namespace {

using client::ControlClient;

struct WaitOptions {
  std::vector<std::string> names;
  bool json = false;
};

// A living VM's outcome when it comes, an ended one's as it was left.
struct Waiting {
  std::string name;
  std::unique_ptr<ControlClient> client;
  std::unique_ptr<EndedVm> ended;
  kj::Maybe<ControlClient::WaitResponse> response;

  schema::Outcome::Reader outcome() {
    KJ_IF_MAYBE (living, response) {
      return living->getOutcome();
    }
    return ended ? ended->info().getOutcome() : schema::Outcome::Reader();
  }
};

// A supervisor that ended while it was being asked has left the outcome, and one that died is reaped. False: no.
bool takeOutcome(const runtime::Directories& directories, Waiting& waiting) {
  try {
    const runtime::Entry entry = runtime::find(directories, runtime::vmName(waiting.name));
    waiting.ended = entry.alive ? nullptr : std::make_unique<EndedVm>(entry);
  } catch (const Error&) {
    // It has removed itself.
  }
  return waiting.ended != nullptr;
}

// Begins to wait for the end of a VM, which is over at once when it has ended.
kj::Promise<void> waitFor(kj::AsyncIoContext& io, const runtime::Directories& directories, Waiting& waiting) {
  config::validateVmName(waiting.name);
  runtime::Entry entry = runtime::find(directories, runtime::vmName(waiting.name));
  if (entry.alive) {
    try {
      waiting.client = connectTo(io, directories, waiting.name);
      return waiting.client->wait().then(
          [&waiting](ControlClient::WaitResponse&& response) { waiting.response = kj::mv(response); },
          rpc::guarded([&directories, &waiting](kj::Exception&& exception) {
            const Error error = rpc::fromKj(exception);
            if (error.code() != ErrorCode::kSupervisorDied || !takeOutcome(directories, waiting)) {
              throw error;
            }
          }));
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kFailedPrecondition) {
        throw;
      }
      entry = runtime::find(directories, runtime::vmName(waiting.name));  // ended between two looks
    }
  }
  waiting.ended = std::make_unique<EndedVm>(entry);
  return kj::READY_NOW;
}

int wait(const WaitOptions& options) {
  auto io = kj::setupAsyncIo();
  const auto directories = openDirectories();
  std::vector<Waiting> waitings(options.names.size());
  kj::Vector<kj::Promise<void>> ends;
  for (std::size_t index = 0; index < options.names.size(); ++index) {
    Waiting& waiting = waitings[index];
    waiting.name = options.names[index];
    ends.add(waitFor(io, directories, waiting));
  }
  client::await(io, kj::joinPromises(ends.releaseAsArray()));
  int code = kExitOk;
  config::JsonWriter writer;
  writer.beginArray();
  for (Waiting& waiting : waitings) {
    const auto outcome = waiting.outcome();
    const bool unknown = waiting.ended && !waiting.ended->known();
    code = code != kExitOk ? code : unknown ? kExitFailed : outcome.getExitCode();  // the first that is not 0
    writer.beginObject().member("name", waiting.name).key("outcome").raw(outcomeJson(outcome)).endObject();
    if (!options.json) {
      printLine(waiting.name + ": " + describeOutcome(outcome));
    }
  }
  if (options.json) {
    printLine(writer.endArray().str());
  }
  for (Waiting& waiting : waitings) {
    waiting.response = nullptr;
    waiting.client.reset();
  }
  return code;
}

Usage usage() {
  const auto options = std::make_shared<WaitOptions>();
  return {
      .arguments = {vmsArgument(options->names)},
      .options = {jsonOption(options->json)},
      .notes = "Exits as `vmmhost run` would have: with the first code in the order of names that is not 0.",
      .carryOut = [options]() { return wait(*options); },
  };
}

}  // namespace

const Verb kWaitVerb = {"wait", "Wait for VMs to end", usage};

}  // namespace vmmhost::cli
