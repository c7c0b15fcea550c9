#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <numeric>
#include <set>

#include "host/base/text.h"
#include "host/runtime/directories.h"
#include "host/runtime/files.h"
#include "host/runtime/name_lock.h"
#include "host/runtime/reaper.h"
#include "host/runtime/sockets.h"
#include "host/runtime/state_room.h"
#include "host/runtime/uid_sweep.h"

namespace vmmhost::runtime {
namespace {

constexpr std::chrono::milliseconds kPatienceOfAList{100};  // for each name

std::string runtimeShown(const Directories& directories, const std::string& name) {
  return directories.paths().runtime + '/' + name;
}
std::string stateShown(const Directories& directories, const std::string& name) {
  return directories.paths().state + '/' + name;
}

std::set<std::string> allNames(const Directories& directories) {
  std::set<std::string> names;
  for (const int folder : {directories.runtimeFd(), directories.stateFd()}) {
    for (std::string& name : folderEntries(folder, 65536)) {
      if (isVmName(name)) {
        names.insert(std::move(name));
      }
    }
  }
  return names;
}

// Asks without disturbing anybody: no lock is taken.
bool lives(int runtimeEntry) {
  const Fd lock(::openat(runtimeEntry, kLockFile, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  return lock && NameLock::isHeld(lock.get());
}

std::optional<std::string> readExit(const Fd& state) {
  return state ? readSmallFile(state.get(), kExitFile, kExitRecordBytes) : std::nullopt;
}

// What there is under a name, reaped if it is dead; nothing if nothing is left of it. Throws kUnavailable when another
// command is changing it for longer than `patience`.
std::optional<Entry> look(const Directories& directories, const std::string& name, std::chrono::milliseconds patience) {
  Entry entry;
  entry.name = name;
  const Fd runtime = openOwnFolder(directories.runtimeFd(), name, runtimeShown(directories, name));
  if (runtime && lives(runtime.get())) {
    entry.alive = true;
    return entry;
  }
  Fd state = openOwnFolder(directories.stateFd(), name, stateShown(directories, name));
  entry.exitJson = readExit(state);
  if (!runtime && (!state || entry.exitJson)) {
    return state ? std::optional(entry) : std::nullopt;
  }
  {
    const NameLock lock = NameLock::take(directories, name, patience);
    if (lock.lives()) {
      entry.alive = true;
      entry.exitJson.reset();
      return entry;
    }
    try {
      reap(directories, name, lock, ReapState::kByRecord);
      NameLock::removeEntry(directories.runtimeFd(), lock.folder(), name);
      sweepUidLeases();  // it may have died between its lease and its record
    } catch (const Error& error) {
      // What stays is tried again by the next command; the VM has ended all the same.
      if (!error.retryable()) {
        throw;
      }
    }
  }
  state = openOwnFolder(directories.stateFd(), name, stateShown(directories, name));
  entry.exitJson = readExit(state);
  return state ? std::optional(entry) : std::nullopt;
}

// Number of insertions, removals and replacements that make one word of the other.
std::size_t distance(std::string_view one, std::string_view other) {
  std::vector<std::size_t> row(other.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < one.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < other.size(); ++j) {
      const std::size_t replaced = diagonal + (one[i] == other[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

Error notFound(const Directories& directories, std::string_view name) {
  std::string similar;
  if (name.size() <= 64) {
    for (const std::string& other : allNames(directories)) {
      if (other != name && (distance(other, name) <= 2 || (!name.empty() && other.rfind(name, 0) == 0))) {
        similar += (similar.empty() ? "" : ", ") + other;
      }
    }
  }
  return Error(ErrorCode::kNotFound, "there is no VM called " + inQuotes(name),
               similar.empty() ? "vmmhost ps -a lists all" : "there is " + similar);
}

// Names from outside: one that no VM can have is one that is not there.
std::string checkedName(const Directories& directories, std::string_view name) {
  if (!isVmName(name)) {
    throw notFound(directories, name);
  }
  return std::string(name);
}

}  // namespace

std::vector<Entry> list(const Directories& directories) {
  std::vector<Entry> entries;
  for (const std::string& name : allNames(directories)) {
    try {
      if (auto entry = look(directories, name, kPatienceOfAList)) {
        entries.push_back(std::move(*entry));
      }
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kUnavailable) {
        Entry entry;
        entry.name = name;
        entry.alive = true;
        entry.isChanging = true;
        entries.push_back(std::move(entry));
      }
      // Else something foreign is in the folder, or the disk is full: the others are listed; find() tells of this one.
    }
  }
  return entries;
}

Entry find(const Directories& directories, std::string_view name) {
  auto entry = look(directories, checkedName(directories, name), NameLock::kPatience);
  if (!entry) {
    throw notFound(directories, name);
  }
  return std::move(*entry);
}

Fd connectControl(const Directories& directories, std::string_view name) {
  const std::string text = checkedName(directories, name);
  const Fd entry = openOwnFolder(directories.runtimeFd(), text, runtimeShown(directories, text));
  const auto starting = [&] {
    return Error(ErrorCode::kUnavailable, "the supervisor of " + text + " takes no commands: it is starting or ending",
                 "try again", true);
  };
  if (!entry || !lives(entry.get())) {
    if (find(directories, name).alive) {
      throw starting();  // it was being made
    }
    throw Error(ErrorCode::kFailedPrecondition, "the VM " + text + " has ended",
                "vmmhost inspect " + text + " tells how");
  }
  struct stat status = {};
  if (::fstatat(entry.get(), kControlSocket, &status, AT_SYMLINK_NOFOLLOW) != 0) {
    throw errno == ENOENT ? starting() : systemError("looking at the control socket of " + text, errno);
  }
  if (!S_ISSOCK(status.st_mode)) {
    throw Error(ErrorCode::kConfinement, runtimeShown(directories, text) + "/control is not a socket");
  }
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) {
    throw systemError("making a socket", errno);
  }
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", entry.get(), kControlSocket);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    switch (errno) {
      case ECONNREFUSED:
      case ENOENT:
        throw starting();
      case EAGAIN:  // nobody accepts: waiting might last for ever
        throw Error(ErrorCode::kUnavailable, "the supervisor of " + text + " does not answer: too many wait for it",
                    "see whether it is stopped", true);
      default:
        throw systemError("connecting to the supervisor of " + text, errno);
    }
  }
  ucred peer = {};
  socklen_t size = sizeof(peer);
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    throw systemError("asking who the supervisor of " + text + " is", errno);
  }
  if (peer.uid != ::geteuid() && peer.uid != 0) {
    throw Error(ErrorCode::kConfinement,
                "user id " + std::to_string(peer.uid) + " answers on the control socket of " + text);
  }
  return socket;
}

Fd connectVsock(const Directories& directories, std::string_view name) {
  const std::string text = checkedName(directories, name);
  const Fd entry = openOwnFolder(directories.runtimeFd(), text, runtimeShown(directories, text));
  if ((!entry || !lives(entry.get())) && !find(directories, name).alive) {
    throw Error(ErrorCode::kFailedPrecondition, "the VM " + text + " has ended",
                "vmmhost inspect " + text + " tells how");
  }
  try {
    return connectIn(entry.get(), kVsockSocket);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kNotFound) {
      throw;
    }
    throw Error(ErrorCode::kFailedPrecondition, "the VM " + text + " has no vsock device, or is being started",
                R"(give it one in its configuration: "vsock": {})");
  }
}

Fd awaitControl(const Directories& directories, std::string_view name, std::chrono::milliseconds limit) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point end = Clock::now() + limit;
  while (true) {
    const std::string text = checkedName(directories, name);
    // Watched before it is looked at: what changes in between is not missed.
    const Fd entry = openOwnFolder(directories.runtimeFd(), text, runtimeShown(directories, text));
    const Fd changes(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    const std::string path = "/proc/self/fd/" + std::to_string(entry.get());
    const bool isWatched =
        entry && changes &&
        ::inotify_add_watch(changes.get(), path.c_str(), IN_MOVED_TO | IN_DELETE | IN_DELETE_SELF) >= 0;
    try {
      return connectControl(directories, name);
    } catch (const Error& error) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
      if (error.code() != ErrorCode::kUnavailable || !isWatched || left <= 0) {
        throw;
      }
      pollfd change = {changes.get(), POLLIN, 0};
      ::poll(&change, 1, static_cast<int>(left));
    }
  }
}

std::string consoleLogName(std::uint32_t port) {
  return port == 0 ? "console.log" : "console." + std::to_string(port) + ".log";
}

Fd openState(const Directories& directories, std::string_view name, std::string_view file) {
  const std::string text = checkedName(directories, name);
  const Fd entry = openOwnFolder(directories.stateFd(), text, stateShown(directories, text));
  if (!entry) {
    throw notFound(directories, name);
  }
  const std::string fileText(file);
  Fd opened(isPlainFileName(file)
                ? ::openat(entry.get(), fileText.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
                : -1);
  struct stat status = {};
  if (!opened || ::fstat(opened.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    throw Error(ErrorCode::kNotFound, "the VM " + text + " has no file " + inQuotes(file));
  }
  return opened;
}

void remove(const Directories& directories, std::string_view name) {
  const std::string text = checkedName(directories, name);
  const Fd runtime = openOwnFolder(directories.runtimeFd(), text, runtimeShown(directories, text));
  const Fd state = openOwnFolder(directories.stateFd(), text, stateShown(directories, text));
  if (!runtime && !state) {
    throw notFound(directories, name);
  }
  if (!runtime || !lives(runtime.get())) {
    const NameLock lock = NameLock::take(directories, text);
    if (!lock.lives()) {
      reap(directories, text, lock, ReapState::kRemove);
      NameLock::removeEntry(directories.runtimeFd(), lock.folder(), text);
      sweepUidLeases();
      return;
    }
  }
  throw Error(ErrorCode::kFailedPrecondition, "the VM " + text + " is running", "vmmhost stop " + text);
}

}  // namespace vmmhost::runtime
