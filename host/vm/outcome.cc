#include "host/vm/outcome.h"

#include <algorithm>

#include "ipc/rpc/connection.h"

namespace vmmhost::vm {

int exitCodeFor(schema::EndKind kind, schema::EndCause cause, const std::optional<Error>& error, int signal) {
  switch (kind) {
    case schema::EndKind::GUEST:
      switch (cause) {
        case schema::EndCause::POWER_OFF:
          return 0;
        case schema::EndCause::RESET:
          return 3;
        default:
          return 1;
      }
    case schema::EndKind::WORKER_DIED:
      return 1;
    case schema::EndKind::TIMEOUT:
      return 124;
    case schema::EndKind::STOPPED:
      return 143;  // as if SIGTERM had ended it
    case schema::EndKind::SIGNALLED:
      return 128 + signal;
    case schema::EndKind::START_FAILED:
      if (error && error->code() == ErrorCode::kNotFound) {
        return 127;
      }
      if (error && (error->code() == ErrorCode::kUnavailable || error->code() == ErrorCode::kConfinement)) {
        return 126;
      }
      return 125;
    default:
      return 125;
  }
}

void writeOutcome(const Outcome& outcome, schema::Outcome::Builder out) {
  out.setKind(outcome.kind);
  out.setCause(outcome.cause);
  out.setDetail(outcome.detail);
  out.setExitCode(outcome.exitCode);
  out.setWorkerPrivateBytes(outcome.workerPrivateBytes);
  if (outcome.error) {
    rpc::writeError(*outcome.error, out.initError());
  }
  auto exit = out.getWorkerExit();
  if (outcome.workerExit) {
    switch (outcome.workerExit->kind) {
      case spawn::Child::Exit::Kind::kCode:
        exit.setCode(outcome.workerExit->value);
        break;
      case spawn::Child::Exit::Kind::kSignal:
        exit.setSignal(outcome.workerExit->value);
        break;
      case spawn::Child::Exit::Kind::kUnknown:
        exit.setUnknown();
        break;
    }
  }
  auto timings = out.initTimings(static_cast<unsigned>(outcome.timings.size()));
  for (unsigned i = 0; i < timings.size(); ++i) {
    timings[i].setPhase(outcome.timings[i].first);
    timings[i].setNs(outcome.timings[i].second);
  }
  auto lines = out.initLastLog(static_cast<unsigned>(outcome.lastLog.size()));
  for (unsigned i = 0; i < lines.size(); ++i) {
    lines.set(i, outcome.lastLog[i]);
  }
  auto notes = out.initNotes(static_cast<unsigned>(std::min(outcome.notes.size(), Outcome::kMaxNotes)));
  for (unsigned i = 0; i < notes.size(); ++i) {
    notes.set(i, outcome.notes[i]);
  }
}

}  // namespace vmmhost::vm
