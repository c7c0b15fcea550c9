// vmmhost shutdown, stop, pause, resume, reset, balloon, wait, rm: what is done to a VM.
#include <capnp/message.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "host/cli/exit_codes.h"
#include "host/cli/output.h"
#include "host/cli/run_report.h"
#include "host/cli/verbs.h"
#include "host/cli/vm_access.h"
#include "host/config/json.h"
#include "host/config/text.h"
#include "host/config/vm_config.h"

namespace vmmhost::cli {

namespace {

using client::ControlClient;

void printDone(const std::string& name, const char* done, bool json) {
  if (json) {
    config::JsonWriter writer;
    print(writer.beginObject().member("name", name).member("done", done).endObject().str() + '\n');
  }
}

void printOutcome(const std::string& name, schema::Outcome::Reader outcome, bool json) {
  if (json) {
    config::JsonWriter writer;
    writer.beginObject().member("name", name).key("outcome").raw(outcomeJson(outcome));
    print(writer.endObject().str() + '\n');
  }
}

// Asks the guest; with a time limit waits for its end, and forces it when the time is over.
int shutdown(kj::AsyncIoContext& io, ControlClient& client, const ControlOptions& options) {
  if (!options.timeoutSeconds) {
    client::await(io, client.shutdown());
    printDone(options.name, "asked", options.json);
    return kExitOk;
  }
  const auto limit = std::chrono::milliseconds(parseSeconds("--timeout", *options.timeoutSeconds));
  auto ended = client.wait();
  // A guest that cannot be asked is ended when the time is over as well: at once, there is nothing to wait for.
  bool asked = true;
  try {
    client::await(io, client.shutdown());
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
  const auto response = client::await(io, client.stop(schema::EndKind::STOPPED, "shutdown took too long"));
  printOutcome(options.name, response.getOutcome(), options.json);
  return kExitOk;
}

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

void stopForRemoval(const runtime::Directories& directories, const std::string& name) {
  auto io = kj::setupAsyncIo();
  try {
    const auto client = connectTo(io, directories, name);
    client::await(io, client->stop(schema::EndKind::STOPPED, "removed by force"));
  } catch (const Error&) {
    if (!hasEnded(directories, name)) {  // else by itself, meanwhile
      throw;
    }
  }
}

// A supervisor that ended while it was being asked has left the outcome, and one that died is reaped. False: no.
bool takeOutcome(const runtime::Directories& directories, Waiting& waiting) {
  try {
    const runtime::Entry entry = runtime::find(directories, waiting.name);
    waiting.ended = entry.alive ? nullptr : std::make_unique<EndedVm>(entry);
  } catch (const Error&) {
    // It has removed itself.
  }
  return waiting.ended != nullptr;
}

// Begins to wait for the end of a VM, which is over at once when it has ended.
kj::Promise<void> waitFor(kj::AsyncIoContext& io, const runtime::Directories& directories, Waiting& waiting) {
  config::validateVmName(waiting.name);
  runtime::Entry entry = runtime::find(directories, waiting.name);
  if (entry.alive) {
    try {
      waiting.client = connectTo(io, directories, waiting.name);
      return waiting.client->wait().then(
          [&waiting](ControlClient::WaitResponse&& response) { waiting.response = kj::mv(response); },
          rpc::guarded([&directories, &waiting](kj::Exception&& exception) {
            const Error error = rpc::fromKj(exception);
            if (error.message() != waiting.client->goneMessage() || !takeOutcome(directories, waiting)) {
              throw error;
            }
          }));
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kFailedPrecondition) {
        throw;
      }
      entry = runtime::find(directories, waiting.name);  // ended between two looks
    }
  }
  waiting.ended = std::make_unique<EndedVm>(entry);
  return kj::READY_NOW;
}

}  // namespace

int control(const ControlOptions& options) {
  auto io = kj::setupAsyncIo();
  const auto directories = openDirectories();
  const auto client = connectTo(io, directories, options.name);
  switch (options.verb) {
    case ControlOptions::Verb::kShutdown:
      return shutdown(io, *client, options);
    case ControlOptions::Verb::kStop: {
      const auto response = client::await(io, client->stop(schema::EndKind::STOPPED, "by the stop verb"));
      printOutcome(options.name, response.getOutcome(), options.json);
      return kExitOk;
    }
    case ControlOptions::Verb::kPause:
      client::await(io, client->pause());
      printDone(options.name, "paused", options.json);
      return kExitOk;
    case ControlOptions::Verb::kResume:
      client::await(io, client->resume());
      printDone(options.name, "resumed", options.json);
      return kExitOk;
    case ControlOptions::Verb::kReset:
      client::await(io, client->reset());
      printDone(options.name, "reset", options.json);
      return kExitOk;
  }
  return kExitFailed;
}

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

int wait(const std::vector<std::string>& names, bool json) {
  auto io = kj::setupAsyncIo();
  const auto directories = openDirectories();
  std::vector<Waiting> waitings(names.size());
  kj::Vector<kj::Promise<void>> ends;
  for (std::size_t index = 0; index < names.size(); ++index) {
    Waiting& waiting = waitings[index];
    waiting.name = names[index];
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
    if (!json) {
      printLine(waiting.name + ": " + describeOutcome(outcome));
    }
  }
  if (json) {
    printLine(writer.endArray().str());
  }
  for (Waiting& waiting : waitings) {
    waiting.response = nullptr;
    waiting.client.reset();
  }
  return code;
}

int remove(const std::vector<std::string>& names, bool force, bool json) {
  const auto directories = openDirectories();
  int code = kExitOk;
  config::JsonWriter writer;
  writer.beginArray();
  for (const std::string& name : names) {
    writer.beginObject().member("name", name);
    try {
      config::validateVmName(name);
      if (force && runtime::find(directories, name).alive) {
        stopForRemoval(directories, name);
      }
      // With --rm it has removed itself by now.
      try {
        runtime::remove(directories, name);
      } catch (const Error& error) {
        if (!force || error.code() != ErrorCode::kNotFound) {
          throw;
        }
      }
      writer.member("removed", true);
    } catch (const Error& error) {
      // The others are removed all the same.
      code = code == kExitOk ? exitCodeOf(error.code()) : code;
      writer.member("removed", false).key("error");
      writeErrorObject(writer, error);
      if (!json) {
        report(error, false);
      }
    }
    writer.endObject();
  }
  if (json) {
    printLine(writer.endArray().str());
  }
  return code;
}

}  // namespace vmmhost::cli
