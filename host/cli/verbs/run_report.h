// What `vmmhost run` says about a VM besides its console.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "host/config/json_writer.h"
#include "vmmhost/schema/host.capnp.h"

namespace vmmhost::cli {

// An end that needs no message: the guest powered itself off.
bool isQuietEnd(schema::Outcome::Reader outcome);
// The worker's last log lines, on standard error.
void printLastLog(schema::Outcome::Reader outcome);
// What a user should know of what was left behind, on standard error.
void printNotes(schema::Outcome::Reader outcome);
// An outcome as a JSON object; kind, cause and exitCode are always there.
std::string outcomeJson(schema::Outcome::Reader outcome);

// Keeps what is needed of a VmInfo, which lives only as long as the answer that it came with.
class RunReport {
 public:
  void take(schema::VmInfo::Reader info);
  // Its timings go up to the end of the VM.
  void take(schema::Outcome::Reader outcome);

  // A table of phases on standard error: milliseconds since the command began, and since the phase before.
  void printTimings(std::uint64_t commandStartNs) const;
  std::string detachedJson() const;
  std::string endedJson(schema::Outcome::Reader outcome, int exitCode) const;

 private:
  void takeTimings(capnp::List<schema::Timing>::Reader timings);
  void writeCommon(config::JsonWriter& json) const;

  std::string name_;
  std::string backend_;
  std::string choice_;
  std::int32_t supervisorPid_ = 0;
  std::int32_t workerPid_ = 0;
  std::int64_t startedUnixMs_ = 0;
  std::uint64_t workerPrivateBytes_ = 0;
  std::vector<std::pair<std::string, std::uint64_t>> timings_;
};

}  // namespace vmmhost::cli
