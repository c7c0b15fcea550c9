#include "host/runtime/owned_groups.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "host/runtime/cgroup_removal.h"
#include "host/runtime/files.h"
#include "host/runtime/record.h"
#include "host/runtime/uid_sweep.h"
#include "vmmhost/error.h"

namespace vmmhost::runtime {
namespace {

constexpr std::size_t kMostEntries = 65536;

}  // namespace

OwnedGroups OwnedGroups::take(int runtimeFolder) {
  Fd folder = makeOwnFolder(runtimeFolder, kOwnedFolder, kOwnedFolder);
  // A file that is there is another VM's, or of a dead one and still of use.
  for (std::size_t number = 0; folder && number < kMostEntries; ++number) {
    std::string name = std::to_string(::getpid()) + '-' + std::to_string(number);
    if (Fd file = lockRemovable(folder.get(), name, O_CREAT | O_EXCL); file) {
      return {std::move(folder), std::move(file), std::move(name)};
    }
  }
  throw Error(ErrorCode::kResourceExhausted, "there is no place to write down control groups", "", true);
}

OwnedGroups::~OwnedGroups() {
  if (file_) {
    ::unlinkat(folder_.get(), name_.c_str(), 0);
  }
}

void OwnedGroups::write(const std::vector<std::string>& cgroups) {
  Record record;
  record.name = name_;
  record.supervisorPid = ::getpid();
  record.cgroups = cgroups;
  const std::string text = formatRecord(record);
  // What is behind it, of a longer one, names groups that are to go as well.
  if (::pwrite(file_.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()) ||
      ::ftruncate(file_.get(), static_cast<off_t>(text.size())) != 0) {
    throw systemError("writing down the control groups of " + name_, errno);
  }
}

void sweepOwnedGroups(int runtimeFolder) noexcept {
  try {
    const Fd folder = openOwnFolder(runtimeFolder, kOwnedFolder, kOwnedFolder);
    if (!folder) {
      return;
    }
    bool wereSome = false;
    for (const std::string& name : folderEntries(folder.get(), kMostEntries)) {
      const Fd lock = lockRemovable(folder.get(), name, 0);
      if (!lock) {
        continue;
      }
      wereSome = true;
      const auto text = readSmallFile(folder.get(), name, kMaxRecordBytes);
      const auto record = text ? parseRecord(*text) : std::nullopt;
      bool isBusy = false;
      for (const std::string& cgroup : record ? record->cgroups : std::vector<std::string>{}) {
        isBusy = removeCgroup(cgroup) == CgroupRemoval::kBusy || isBusy;
      }
      if (!isBusy) {
        ::unlinkat(folder.get(), name.c_str(), 0);
      }
    }
    if (wereSome) {
      sweepUidLeases();  // as root they had user ids as well
    }
  } catch (const Error&) {
    // Nothing depends on it; the next one tries again.
  }
}

}  // namespace vmmhost::runtime
