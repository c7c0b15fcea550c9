// vmmhost ps, vmmhost inspect: what there is.
#include <capnp/message.h>

#include <chrono>
#include <memory>
#include <vector>

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

// A supervisor that is stopped or hangs does not hold up the list of the others.
constexpr std::chrono::milliseconds kListTimeout{1000};

struct Row {
  runtime::Entry entry;
  std::unique_ptr<ControlClient> client;
  kj::Maybe<ControlClient::InfoResponse> info;
  std::unique_ptr<EndedVm> ended;
  bool answers = false;
};

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
          std::make_unique<ControlClient>(io, runtime::connectControl(directories, row.entry.name), row.entry.name);
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
    table.add({row.entry.name, info.getBackend().size() == 0 ? "-" : config::printable(view(info.getBackend()), 32),
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
        .member("name", row.entry.name)
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

int printConfig(schema::VmConfig::Reader config) {
  printLine(config::writeJson(config, {.pretty = true, .withDefaults = false}));
  return 0;
}

}  // namespace

int ps(const PsOptions& options) {
  const auto directories = openDirectories();
  std::vector<Row> rows;
  for (runtime::Entry& entry : runtime::list(directories)) {
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

int inspect(const InspectOptions& options) {
  if (options.name.empty()) {
    if (!options.config) {
      throw Error(ErrorCode::kInvalidArgument, "inspect needs the name of a VM, or --config with the flags of run",
                  "vmmhost inspect NAME, or vmmhost inspect --config -f vm.json");
    }
    capnp::MallocMessageBuilder message;
    auto vm = message.initRoot<schema::VmConfig>();
    config::buildVmConfig(options.flags, vm);
    config::validateVmConfig(vm.asReader());
    return printConfig(vm.asReader());
  }
  config::validateVmName(options.name);
  const auto directories = openDirectories();
  const runtime::Entry entry = runtime::find(directories, options.name);
  if (!entry.alive) {
    const EndedVm ended(entry);
    if (options.config) {
      return printConfig(ended.info().getConfig());
    }
    printLine(config::writeJson(ended.info(), {.pretty = true, .withDefaults = true}));
    return 0;
  }
  auto io = kj::setupAsyncIo();
  const auto client = connectTo(io, directories, options.name);
  const auto response = client::await(io, client->info());
  if (options.config) {
    return printConfig(response.getInfo().getConfig());
  }
  printLine(config::writeJson(response.getInfo(), {.pretty = true, .withDefaults = true}));
  return 0;
}

}  // namespace vmmhost::cli
