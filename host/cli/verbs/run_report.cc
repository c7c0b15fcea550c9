#include "host/cli/verbs/run_report.h"

#include <capnp/message.h>

#include <algorithm>

#include "host/base/clock.h"
#include "host/cli/base/output.h"
#include "host/config/json.h"

namespace vmmhost::cli {

namespace {

constexpr std::size_t kMaxTimings = 256;

}  // namespace

bool isQuietEnd(schema::Outcome::Reader outcome) {
  return outcome.getKind() == schema::EndKind::GUEST && outcome.getCause() == schema::EndCause::POWER_OFF;
}

void printLastLog(schema::Outcome::Reader outcome) {
  for (const auto line : outcome.getLastLog()) {
    note("worker: " + std::string(view(line)));
  }
}

void printNotes(schema::Outcome::Reader outcome) {
  for (const auto line : outcome.getNotes()) {
    note(std::string(view(line)));
  }
}

std::string outcomeJson(schema::Outcome::Reader outcome) {
  return config::writeJson(outcome, {.pretty = true, .withDefaults = true});
}

void RunReport::take(schema::VmInfo::Reader info) {
  name_ = view(info.getName());
  backend_ = view(info.getBackend());
  choice_ = view(info.getChoice());
  supervisorPid_ = info.getSupervisorPid();
  workerPid_ = info.getWorkerPid() != 0 ? info.getWorkerPid() : workerPid_;
  startedUnixMs_ = info.getStartedUnixMs();
  takeTimings(info.getTimings());
}

void RunReport::take(schema::Outcome::Reader outcome) {
  workerPrivateBytes_ = outcome.getWorkerPrivateBytes();
  if (outcome.hasTimings()) {
    takeTimings(outcome.getTimings());
  }
}

void RunReport::takeTimings(capnp::List<schema::Timing>::Reader timings) {
  timings_.clear();
  for (const auto timing : timings) {
    if (timings_.size() < kMaxTimings) {
      timings_.emplace_back(view(timing.getPhase()), timing.getNs());
    }
  }
}

void RunReport::printTimings(std::uint64_t commandStartNs) const {
  auto phases = timings_;
  phases.emplace_back("command done", monotonicNanoseconds());
  // What a guest tells of its boot may arrive after what the host saw meanwhile.
  std::stable_sort(phases.begin(), phases.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  Table table({"PHASE", "AT MS", "STEP MS"});
  std::uint64_t previous = commandStartNs;
  for (const auto& [phase, ns] : phases) {
    table.add({phase, formatNs(ns - std::min(ns, commandStartNs)), formatNs(ns - std::min(ns, previous))});
    previous = ns;
  }
  noteBlock(table.str());
  note("private memory of the worker: " +
       (workerPrivateBytes_ > 0 ? std::to_string(workerPrivateBytes_ / 1024) + " KiB" : "not measured"));
}

void RunReport::writeCommon(config::JsonWriter& json) const {
  json.member("name", name_)
      .member("backend", backend_)
      .member("choice", choice_)
      .member("supervisorPid", supervisorPid_)
      .member("workerPid", workerPid_)
      .member("startedUnixMs", startedUnixMs_)
      .member("workerPrivateBytes", workerPrivateBytes_);
  json.key("timings").beginArray();
  for (const auto& [phase, ns] : timings_) {
    json.beginObject().member("phase", phase).member("ns", ns).endObject();
  }
  json.endArray();
}

std::string RunReport::detachedJson() const {
  config::JsonWriter json;
  json.beginObject();
  writeCommon(json);
  return json.member("detached", true).endObject().str();
}

std::string RunReport::endedJson(schema::Outcome::Reader outcome, int exitCode) const {
  config::JsonWriter json;
  json.beginObject();
  writeCommon(json);
  // The timings are those of the whole run already.
  capnp::MallocMessageBuilder message;
  message.setRoot(outcome);
  message.getRoot<schema::Outcome>().disownTimings();
  json.member("detached", false).member("exitCode", exitCode).key("outcome");
  json.raw(outcomeJson(message.getRoot<schema::Outcome>().asReader()));
  return json.endObject().str();
}

}  // namespace vmmhost::cli
