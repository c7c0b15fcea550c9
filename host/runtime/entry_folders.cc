#include "host/runtime/entry_folders.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <vector>

#include "host/runtime/files.h"

namespace vmmhost::runtime {
namespace {

bool isThere(int folder, const char* file) {
  struct stat status = {};
  return ::fstatat(folder, file, &status, AT_SYMLINK_NOFOLLOW) == 0;
}

// The first of what shows that a state folder is an entry's.
const char* stateMark(int folder) {
  static constexpr std::array<const char*, 5> kMarks = {kExitFile, kConfigFile, kLogFile, ".exit.json.new",
                                                        ".config.json.new"};
  const auto* const mark =
      std::find_if(kMarks.begin(), kMarks.end(), [&](const char* file) { return isThere(folder, file); });
  return mark == kMarks.end() ? nullptr : *mark;
}

// What has the mark is an entry, and what has nothing yet or no more. Who makes or removes one does so meanwhile: the
// mark is looked for before and after the rest, since it comes before it and goes after it.
template <typename HasMark>
bool isEntry(const EntryName& name, int folder, HasMark hasMark) {
  return name.kind == Kind::kVm || hasMark(folder) || folderEntries(folder, 1).empty() || hasMark(folder);
}

}  // namespace

std::string runtimeShown(const Directories& directories, const EntryName& name) {
  return directories.paths().runtime + '/' + name.folder();
}

std::string stateShown(const Directories& directories, const EntryName& name) {
  return directories.paths().state + '/' + name.folder();
}

bool isRuntimeEntry(const EntryName& name, int folder) {
  return isEntry(name, folder, [](int inner) { return isThere(inner, kLockFile); });
}

bool isStateEntry(const EntryName& name, int folder) {
  return isEntry(name, folder, [](int inner) { return stateMark(inner) != nullptr; });
}

Error notAnEntry(const EntryName& name, const std::string& shown) {
  return Error(ErrorCode::kConfinement,
               "the folder " + shown + " would be that of the " + name.noun() + ' ' + name.text +
                   ", and holds what vmmhost has not put there",
               "see what it is, and move it away");
}

Fd openRuntimeEntry(const Directories& directories, const EntryName& name) {
  Fd folder = openOwnFolder(directories.runtimeFd(), name.folder(), runtimeShown(directories, name));
  return folder && isRuntimeEntry(name, folder.get()) ? std::move(folder) : Fd();
}

Fd openStateEntry(const Directories& directories, const EntryName& name) {
  Fd folder = openOwnFolder(directories.stateFd(), name.folder(), stateShown(directories, name));
  return folder && isStateEntry(name, folder.get()) ? std::move(folder) : Fd();
}

void emptyState(int folder) noexcept {
  try {
    const char* const mark = stateMark(folder);
    emptyFolder(folder, mark == nullptr ? std::string() : std::string(mark));
  } catch (...) {
    // Without memory it stays for the next command.
  }
}

}  // namespace vmmhost::runtime
