#include "host/runtime/name_lock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <ctime>
#include <vector>

#include "host/base/text.h"
#include "host/runtime/entry_folders.h"
#include "host/runtime/files.h"
#include "host/runtime/lock_wait.h"

namespace vmmhost::runtime {
namespace {

constexpr off_t kLife = 0;
constexpr off_t kChange = 1;
constexpr int kMaxAttempts = 1000;

struct flock byteLock(off_t byte, short type) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

bool control(int file, int command, off_t byte, short type) {
  struct flock lock = byteLock(byte, type);
  int result;
  while ((result = ::fcntl(file, command, &lock)) != 0 && errno == EINTR) {
  }
  if (result != 0 && errno != EAGAIN && errno != EACCES) {
    throw systemError("locking an entry of the runtime folder", errno);
  }
  return result == 0;
}

bool sameFile(const struct stat& one, const struct stat& other) {
  return one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

// Best effort: a full disk is no reason to do without the lock.
void sayWhoHolds(int lock) {
  timespec now = {};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const std::string text = std::to_string(::getpid()) + ' ' +
                           std::to_string(std::uint64_t{1'000'000'000} * static_cast<std::uint64_t>(now.tv_sec) +
                                          static_cast<std::uint64_t>(now.tv_nsec)) +
                           '\n';
  if (::pwrite(lock, text.data(), text.size(), 0) >= 0) {
    [[maybe_unused]] const int cut = ::ftruncate(lock, static_cast<off_t>(text.size()));
  }
}

// Before it is given up: who looks later is to find no name of one that has done.
void sayThatNobodyHolds(int lock) noexcept {
  [[maybe_unused]] const int cut = ::ftruncate(lock, 0);
}

// Up to the end of the line: behind it may be the rest of a longer one, which is about to be cut off.
std::string whoHolds(int lock) {
  char text[64];
  const ssize_t got = ::pread(lock, text, sizeof text, 0);
  const std::string_view all(text, static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  return std::string(all.substr(0, all.find('\n')));
}

// `process`: its folder in /proc. What is written in a lock file may be of one that is gone, whose number another has.
bool hasOpen(const Fd& process, int lock) {
  struct stat wanted = {};
  const Fd descriptors(::openat(process.get(), "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!descriptors || ::fstat(lock, &wanted) != 0) {
    return false;
  }
  const std::vector<std::string> names = folderEntries(descriptors.get(), 65536);
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    struct stat open = {};
    return ::fstatat(descriptors.get(), name.c_str(), &open, 0) == 0 && sameFile(open, wanted);
  });
}

// The folder in /proc of the process that is said to hold `lock`; nothing if it is not known to have it open.
Fd processOf(int lock, const std::string& holder) {
  pid_t pid = 0;
  std::from_chars(holder.data(), holder.data() + holder.size(), pid);
  Fd process(pid > 0 ? ::open(("/proc/" + std::to_string(pid)).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC) : -1);
  return process && hasOpen(process, lock) ? std::move(process) : Fd();
}

// `holder`: what is written in the lock file; `process`: see processOf().
Error heldTooLong(const EntryName& name, const std::string& holder, const Fd& process) {
  const std::string begin = std::string("another command is changing the ") +
                            (name.kind == Kind::kVm ? "entry" : name.noun()) + ' ' + inQuotes(name.text);
  const std::string stat = process ? readSmallFile(process.get(), "stat", 4096).value_or("") : "";
  const std::size_t nameEnd = stat.rfind(") ");
  if (nameEnd == std::string::npos) {
    return Error(ErrorCode::kUnavailable, begin + " and does not come to an end", "try again in a moment", true);
  }
  const std::string number = holder.substr(0, holder.find_first_not_of("0123456789"));
  const std::size_t nameBegin = stat.find('(') + 1;
  const char state = stat[nameEnd + 2];
  const bool isStopped = state == 'T' || state == 't';  // by a signal, by a debugger (proc(5))
  return Error(ErrorCode::kUnavailable,
               begin + ": process " + number + " (" +
                   printable(std::string_view(stat).substr(nameBegin, nameEnd - nameBegin), 64) + ")" +
                   (isStopped ? ", which is stopped" : ", which is not stopped and does not come to an end"),
               isStopped ? "kill -CONT " + number + " lets it go on, kill -KILL " + number + " ends it"
                         : "kill -KILL " + number + " ends it",
               true);
}

void waitForChange(int lock, const EntryName& name, std::chrono::milliseconds patience) {
  std::string holder = whoHolds(lock);
  bool wasUnclear = false;
  while (!lockWithin(lock, byteLock(kChange, F_WRLCK), patience)) {
    std::string now = whoHolds(lock);
    const bool isSame = now == holder;  // else many want it, and one after the other gets it
    // The same text is of the same holder only if that one has the lock: until a new holder has written, nothing is
    // there, or the name of one that was killed. For two looks to fall on such moments is rare, for three it is one
    // holder that hangs there or cannot write.
    const Fd process = isSame ? processOf(lock, now) : Fd();
    if (isSame && (process || wasUnclear)) {
      throw heldTooLong(name, now, process);
    }
    wasUnclear = isSame;
    holder = std::move(now);
  }
}

// Whether `folder` and `lock` are what the names lead to. Where nobody holds life that stays so for as long as change
// is held.
bool inPlace(int parent, const std::string& name, int folder, int lock) {
  struct stat named = {};
  struct stat open = {};
  return ::fstatat(parent, name.c_str(), &named, AT_SYMLINK_NOFOLLOW) == 0 && ::fstat(folder, &open) == 0 &&
         sameFile(named, open) && ::fstatat(folder, kLockFile, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
         ::fstat(lock, &open) == 0 && sameFile(named, open);
}

}  // namespace

NameLock NameLock::take(const Directories& directories, const EntryName& name, std::chrono::milliseconds patience) {
  const std::string shown = runtimeShown(directories, name);
  const std::string folderName = name.folder();
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    // Made and of no use: who else has begun to use it makes it again.
    const auto giveUp = [&](const Error& error) {
      if (error.code() == ErrorCode::kResourceExhausted) {
        ::unlinkat(directories.runtimeFd(), folderName.c_str(), AT_REMOVEDIR);
      }
      return error;
    };
    Fd folder;
    try {
      folder = makeOwnFolder(directories.runtimeFd(), folderName, shown);
    } catch (const Error& error) {
      throw giveUp(error);
    }
    if (!folder) {
      continue;
    }
    if (!isRuntimeEntry(name, folder.get())) {
      throw notAnEntry(name, shown);
    }
    Fd lock(::openat(folder.get(), kLockFile, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600));
    if (!lock) {
      if (errno == ENOENT) {
        continue;
      }
      throw giveUp(systemError("opening " + shown + "/lock", errno));
    }
    waitForChange(lock.get(), name, patience);
    sayWhoHolds(lock.get());
    // In this order: a supervisor removes its entry while it holds life, and without change, so that nobody who hangs
    // can keep it from ending.
    const bool lives = isHeld(lock.get());
    if (lives || inPlace(directories.runtimeFd(), folderName, folder.get(), lock.get())) {
      return NameLock(std::move(folder), std::move(lock), lives);
    }
  }
  throw Error(ErrorCode::kInternal, "the folder " + shown + " is removed again and again", {}, true);
}

NameLock::~NameLock() {
  if (lock_ && isChanging_) {
    sayThatNobodyHolds(lock_.get());
  }
}

bool NameLock::becomeSupervisor() {
  if (!control(lock_.get(), F_OFD_SETLK, kLife, F_WRLCK)) {
    return false;
  }
  sayThatNobodyHolds(lock_.get());
  isChanging_ = false;
  control(lock_.get(), F_OFD_SETLK, kChange, F_UNLCK);
  return true;
}

bool NameLock::isHeld(int lockFile) {
  struct flock lock = byteLock(kLife, F_WRLCK);
  int result;
  while ((result = ::fcntl(lockFile, F_OFD_GETLK, &lock)) != 0 && errno == EINTR) {
  }
  if (result != 0) {
    throw systemError("asking for a lock in the runtime folder", errno);
  }
  return lock.l_type != F_UNLCK;
}

void NameLock::removeEntry(int runtimeParent, int folder, const std::string& folderName) noexcept {
  ::unlinkat(folder, kLockFile, 0);
  // Fails if somebody has begun to use the folder again: then it is theirs.
  ::unlinkat(runtimeParent, folderName.c_str(), AT_REMOVEDIR);
}

}  // namespace vmmhost::runtime
