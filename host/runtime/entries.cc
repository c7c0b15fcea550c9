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
#include "host/runtime/entry_folders.h"
#include "host/runtime/files.h"
#include "host/runtime/name_lock.h"
#include "host/runtime/reaper.h"
#include "host/runtime/sockets.h"
#include "host/runtime/state_room.h"
#include "host/runtime/uid_sweep.h"

namespace vmmhost::runtime {
namespace {

constexpr std::chrono::milliseconds kPatienceOfAList{100};  // for each name

std::set<std::string> allNames(const Directories& directories, Kind kind) {
  std::set<std::string> names;
  for (const int parent : {directories.runtimeFd(), directories.stateFd()}) {
    for (const std::string& folder : folderEntries(parent, 65536)) {
      if (auto name = entryOfFolder(kind, folder)) {
        names.insert(std::move(name->text));
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
std::optional<Entry> look(const Directories& directories, const EntryName& name, std::chrono::milliseconds patience) {
  Entry entry;
  entry.name = name;
  const Fd runtime = openRuntimeEntry(directories, name);
  if (runtime && lives(runtime.get())) {
    entry.alive = true;
    return entry;
  }
  Fd state = openStateEntry(directories, name);
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
      NameLock::removeEntry(directories.runtimeFd(), lock.folder(), name.folder());
      sweepUidLeases();  // it may have died between its lease and its record
    } catch (const Error& error) {
      // What stays is tried again by the next command; it has ended all the same.
      if (!error.retryable()) {
        throw;
      }
    }
  }
  state = openStateEntry(directories, name);
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

Error notFound(const Directories& directories, const EntryName& name) {
  const std::string& text = name.text;
  std::string similar;
  if (text.size() <= 64) {
    for (const std::string& other : allNames(directories, name.kind)) {
      if (other != text && (distance(other, text) <= 2 || (!text.empty() && other.starts_with(text)))) {
        similar += (similar.empty() ? "" : ", ") + other;
      }
    }
  }
  const char* const all = name.kind == Kind::kVm ? "vmmhost ps -a lists all" : "vmmhost network ls lists all";
  return Error(ErrorCode::kNotFound, std::string("there is no ") + name.noun() + " called " + inQuotes(text),
               similar.empty() ? all : "there is " + similar);
}

Error hasEnded(const EntryName& name) {
  return Error(ErrorCode::kFailedPrecondition, std::string("the ") + name.noun() + ' ' + name.text + " has ended",
               name.command("inspect") + " tells how");
}

// Names from outside: one that nothing can have is one that is not there.
void requireName(const Directories& directories, const EntryName& name) {
  if (!name.isValid()) {
    throw notFound(directories, name);
  }
}

}  // namespace

std::vector<Entry> list(const Directories& directories, Kind kind) {
  std::vector<Entry> entries;
  for (const std::string& text : allNames(directories, kind)) {
    const EntryName name{kind, text};
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

Entry find(const Directories& directories, const EntryName& name) {
  requireName(directories, name);
  auto entry = look(directories, name, NameLock::kPatience);
  if (!entry) {
    throw notFound(directories, name);
  }
  return std::move(*entry);
}

Fd connectControl(const Directories& directories, const EntryName& name) {
  requireName(directories, name);
  const Fd entry = openRuntimeEntry(directories, name);
  const std::string owner = name.owner();
  const auto starting = [&] {
    return Error(ErrorCode::kUnavailable, "the supervisor of " + owner + " takes no commands: it is starting or ending",
                 "try again", true);
  };
  if (!entry || !lives(entry.get())) {
    if (find(directories, name).alive) {
      throw starting();  // it was being made
    }
    throw hasEnded(name);
  }
  struct stat status = {};
  if (::fstatat(entry.get(), kControlSocket, &status, AT_SYMLINK_NOFOLLOW) != 0) {
    throw errno == ENOENT ? starting() : systemError("looking at the control socket of " + owner, errno);
  }
  if (!S_ISSOCK(status.st_mode)) {
    throw Error(ErrorCode::kConfinement, runtimeShown(directories, name) + "/control is not a socket");
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
        throw Error(ErrorCode::kUnavailable, "the supervisor of " + owner + " does not answer: too many wait for it",
                    "see whether it is stopped", true);
      default:
        throw systemError("connecting to the supervisor of " + owner, errno);
    }
  }
  ucred peer = {};
  socklen_t size = sizeof(peer);
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    throw systemError("asking who the supervisor of " + owner + " is", errno);
  }
  if (peer.uid != ::geteuid() && peer.uid != 0) {
    throw Error(ErrorCode::kConfinement,
                "user id " + std::to_string(peer.uid) + " answers on the control socket of " + owner);
  }
  return socket;
}

Fd connectVsock(const Directories& directories, const EntryName& name) {
  requireName(directories, name);
  const Fd entry = openRuntimeEntry(directories, name);
  if ((!entry || !lives(entry.get())) && !find(directories, name).alive) {
    throw hasEnded(name);
  }
  try {
    return connectIn(entry.get(), kVsockSocket);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kNotFound) {
      throw;
    }
    throw Error(ErrorCode::kFailedPrecondition,
                std::string("the ") + name.noun() + ' ' + name.text + " has no vsock device, or is being started",
                R"(give it one in its configuration: "vsock": {})");
  }
}

Fd awaitControl(const Directories& directories, const EntryName& name, std::chrono::milliseconds limit) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point end = Clock::now() + limit;
  while (true) {
    requireName(directories, name);
    // Watched before it is looked at: what changes in between is not missed.
    const Fd entry = openRuntimeEntry(directories, name);
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

Fd openState(const Directories& directories, const EntryName& name, std::string_view file) {
  requireName(directories, name);
  const Fd entry = openStateEntry(directories, name);
  if (!entry) {
    throw notFound(directories, name);
  }
  const std::string fileText(file);
  Fd opened(isPlainFileName(file)
                ? ::openat(entry.get(), fileText.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
                : -1);
  struct stat status = {};
  if (!opened || ::fstat(opened.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    throw Error(ErrorCode::kNotFound,
                std::string("the ") + name.noun() + ' ' + name.text + " has no file " + inQuotes(file));
  }
  return opened;
}

void remove(const Directories& directories, const EntryName& name) {
  requireName(directories, name);
  const Fd runtime = openRuntimeEntry(directories, name);
  const Fd state = openStateEntry(directories, name);
  if (!runtime && !state) {
    throw notFound(directories, name);
  }
  if (!runtime || !lives(runtime.get())) {
    const NameLock lock = NameLock::take(directories, name);
    if (!lock.lives()) {
      reap(directories, name, lock, ReapState::kRemove);
      NameLock::removeEntry(directories.runtimeFd(), lock.folder(), name.folder());
      sweepUidLeases();
      return;
    }
  }
  throw Error(ErrorCode::kFailedPrecondition, std::string("the ") + name.noun() + ' ' + name.text + " is running",
              name.kind == Kind::kVm ? name.command("stop") : "end it first");
}

}  // namespace vmmhost::runtime
