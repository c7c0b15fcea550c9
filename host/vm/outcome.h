// How a VM ended, and what commands exit with because of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ipc/jail/spawn/spawn.h"
#include "vmmhost/error.h"
#include "vmmhost/schema/host.capnp.h"

namespace vmmhost::vm {

struct Outcome {
  schema::EndKind kind = schema::EndKind::START_FAILED;
  schema::EndCause cause = schema::EndCause::UNKNOWN;  // for kind guest
  std::string detail;
  int exitCode = 125;
  std::optional<Error> error;
  std::optional<spawn::Child::Exit> workerExit;  // when the worker ended unasked
  std::vector<std::string> lastLog;
  std::uint64_t workerPrivateBytes = 0;  // as VmInfo has it, when the guest ended; 0: not measured
  std::vector<std::pair<std::string, std::uint64_t>> timings;  // phase, CLOCK_MONOTONIC ns
  static constexpr std::size_t kMaxNotes = 64;
  std::vector<std::string> notes;  // what a user should know of what was left behind
};

// Exit codes of `run` and `wait` (README.md, "Exit codes").
int exitCodeFor(schema::EndKind kind, schema::EndCause cause, const std::optional<Error>& error, int signal);

void writeOutcome(const Outcome& outcome, schema::Outcome::Builder out);

}  // namespace vmmhost::vm
