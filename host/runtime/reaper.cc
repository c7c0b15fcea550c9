#include "host/runtime/reaper.h"

#include <capnp/message.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "host/config/json.h"
#include "host/runtime/cgroup_removal.h"
#include "host/runtime/entry_folders.h"
#include "host/runtime/files.h"
#include "host/runtime/record.h"
#include "host/runtime/uid_sweep.h"
#include "vmmhost/schema/host.capnp.h"

namespace vmmhost::runtime {
namespace {

constexpr int kExitCodeOwnError = 125;

std::string outcomeOfDead(const std::optional<Record>& record) {
  capnp::MallocMessageBuilder message;
  auto outcome = message.initRoot<schema::Outcome>();
  outcome.setKind(schema::EndKind::SUPERVISOR_DIED);
  outcome.setExitCode(kExitCodeOwnError);
  const std::string process =
      record && record->supervisorPid > 0 ? " (process " + std::to_string(record->supervisorPid) + ")" : "";
  outcome.setDetail("the supervisor" + process + " ended without saying why, and was found gone by a later command");
  return config::writeJson(outcome.asReader());
}

void settleState(const Directories& directories, const EntryName& name, const std::optional<Record>& record,
                 ReapState wanted) {
  const Fd entry = openStateEntry(directories, name);
  if (!entry) {
    return;
  }
  const std::vector<std::string> files = folderEntries(entry.get());
  const bool nothing =
      std::all_of(files.begin(), files.end(), [](const std::string& file) { return !isPlainFileName(file); });
  if (wanted == ReapState::kRemove || nothing || (record && record->removeOnEnd)) {
    emptyState(entry.get());
    if (::unlinkat(directories.stateFd(), name.folder().c_str(), AT_REMOVEDIR) != 0 && wanted == ReapState::kRemove) {
      throw systemError("removing " + stateShown(directories, name), errno);
    }
  } else if (std::find(files.begin(), files.end(), kExitFile) == files.end()) {
    replaceFile(entry.get(), kExitFile, outcomeOfDead(record));
  }
}

}  // namespace

void reap(const Directories& directories, const EntryName& name, const NameLock& lock, ReapState state) {
  const auto text = readSmallFile(lock.folder(), kRecordFile, kMaxRecordBytes);
  std::optional<Record> record = text ? parseRecord(*text) : std::nullopt;
  if (record && record->kind != name.kind) {
    record.reset();  // it came from somewhere else: what it names is not this entry's
  }
  std::string busy;
  if (record) {
    for (const std::string& cgroup : record->cgroups) {
      if (removeCgroup(cgroup) == CgroupRemoval::kBusy) {
        busy = cgroup;
      }
    }
    sweepUidLeases();
  }
  settleState(directories, name, record, state);
  if (!busy.empty()) {
    throw Error(ErrorCode::kFailedPrecondition,
                "the cgroup " + busy + " of the ended " + name.noun() + ' ' + name.text +
                    " cannot be removed: a process in it does not end",
                "try again; ps lists it", true);
  }
  emptyFolder(lock.folder(), {}, kLockFile);
}

}  // namespace vmmhost::runtime
