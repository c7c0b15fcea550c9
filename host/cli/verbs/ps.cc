// vmmhost ps: lists VMs.
#include <chrono>
#include <memory>
#include <vector>

#include "host/base/text.h"
#include "host/cli/base/output.h"
#include "host/cli/base/vm_access.h"
#include "host/cli/verbs/run_report.h"
#include "host/cli/verbs/shared_usage.h"
#include "host/cli/verbs/verbs.h"
#include "host/config/json_writer.h"

namespace vmmhost::cli {

namespace {

using client::ControlClient;

struct PsOptions {
  bool all = false;
  bool json = false;
};

// A supervisor that is stopped or hangs does not hold up the list of the others.
constexpr std::chrono::milliseconds kListTimeout{1000};

struct Row {
  runtime::Entry entry;
  std::unique_ptr<ControlClient> client;
  kj::Maybe<ControlClient::InfoResponse> info;
  std::unique_ptr<EndedVm> ended;
  bool answers = false;
};

const std::string& nameOf(const Row& row) {
  return row.entry.name.text;
}

std::int64_t unixMs() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

// Asks all living ones side by side.
void askAll(kj::AsyncIoContext& io, const runtime::Directories& directories, std::vector<Row>& rows) {
  kj::Vector<kj::Promise<void>> questions;
  for (Row& row : rows) {
    if (!row.entry.alive) {
      row.ended = std::make_unique<EndedVm>(row.entry);
      continue;
    }
    if (row.entry.isChanging) {
      continue;  // it would be waited for
    }
    try {
      row.client =
          std::make_unique<ControlClient>(io, runtime::connectControl(directories, row.entry.name), nameOf(row));
    } catch (const Error&) {
      continue;  // being prepared, or its listen queue is full
    }
    questions.add(row.client->hello(kListTimeout)
                      .then([&row]() { return row.client->info(kListTimeout, ControlClient::Memory::kLeftOut); })
                      .then([&row](ControlClient::InfoResponse&& response) {
                        row.info = kj::mv(response);
                        row.answers = true;
                      })
                      .catch_([](kj::Exception&&) {}));
  }
  client::await(io, kj::joinPromises(questions.releaseAsArray()));
}

schema::VmInfo::Reader infoOf(Row& row) {
  KJ_IF_MAYBE (response, row.info) {
    return response->getInfo();
  }
  return row.ended ? row.ended->info() : schema::VmInfo::Reader();
}

std::string stateText(Row& row) {
  if (row.ended) {
    return row.ended->known() ? "ended: " + describeOutcome(row.ended->info().getOutcome()) : "ended";
  }
  if (row.entry.isChanging) {
    return "being changed by another command";
  }
  return row.answers ? stateName(infoOf(row).getState()) : "not answering";
}

std::string uptime(Row& row) {
  const auto info = infoOf(row);
  if (info.getStartedUnixMs() == 0) {
    return "-";
  }
  const std::int64_t end = row.ended ? info.getEndedUnixMs() : unixMs();
  return end == 0 ? "-" : formatSeconds((end - info.getStartedUnixMs()) / 1000);
}

std::string tableOf(std::vector<Row>& rows) {
  Table table({"NAME", "BACKEND", "STATE", "CPUS", "MEMORY", "UPTIME", "PID"});
  for (Row& row : rows) {
    const auto info = infoOf(row);
    const bool known = info.hasConfig();
    table.add({nameOf(row), info.getBackend().size() == 0 ? "-" : printable(view(info.getBackend()), 32),
               stateText(row), known ? std::to_string(info.getConfig().getCpus().getCount()) : "-",
               known ? formatBytes(info.getConfig().getMemory().getSize()) : "-", uptime(row),
               row.ended || info.getSupervisorPid() == 0 ? "-" : std::to_string(info.getSupervisorPid())});
  }
  return table.str();
}

std::string jsonOf(std::vector<Row>& rows) {
  config::JsonWriter json;
  json.beginArray();
  for (Row& row : rows) {
    const auto info = infoOf(row);
    json.beginObject()
        .member("name", nameOf(row))
        .member("backend", view(info.getBackend()))
        .member("state", row.ended     ? "ended"
                         : row.answers ? stateName(info.getState())
                                       : "notAnswering")
        .member("cpus", info.getConfig().getCpus().getCount())
        .member("memory", info.getConfig().getMemory().getSize())
        .member("startedUnixMs", info.getStartedUnixMs())
        .member("endedUnixMs", info.getEndedUnixMs())
        .member("supervisorPid", row.ended ? 0 : info.getSupervisorPid())
        .member("workerPid", row.ended ? 0 : info.getWorkerPid())
        .member("detached", info.getDetached());
    if (row.ended && row.ended->known()) {
      json.key("outcome").raw(outcomeJson(info.getOutcome()));
    }
    json.endObject();
  }
  return json.endArray().str();
}

int ps(const PsOptions& options) {
  const auto directories = openDirectories();
  std::vector<Row> rows;
  for (runtime::Entry& entry : runtime::list(directories, runtime::Kind::kVm)) {
    if (entry.alive || options.all) {
      rows.push_back({std::move(entry), {}, nullptr, {}, false});
    }
  }
  auto io = kj::setupAsyncIo();
  askAll(io, directories, rows);
  if (options.json) {
    printLine(jsonOf(rows));
  } else {
    print(tableOf(rows));
  }
  for (Row& row : rows) {
    row.info = nullptr;  // before the connection that it came by, and that before the event loop
    row.client.reset();
  }
  return 0;
}

Usage usage() {
  const auto options = std::make_shared<PsOptions>();
  return {
      .options = {{"-a,--all", kFlag, "Ended VMs as well", &options->all}, jsonOption(options->json)},
      .carryOut = [options]() { return ps(*options); },
  };
}

}  // namespace

const Verb kPsVerb = {"ps", "List VMs", usage};

}  // namespace vmmhost::cli
