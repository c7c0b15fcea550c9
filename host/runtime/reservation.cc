#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "host/runtime/directories.h"
#include "host/runtime/entry_folders.h"
#include "host/runtime/files.h"
#include "host/runtime/name_lock.h"
#include "host/runtime/reaper.h"
#include "host/runtime/record.h"
#include "host/runtime/sockets.h"

namespace vmmhost::runtime {

namespace {

constexpr int kBacklog = 512;  // served in order: a queue that is hardly ever full crowds nobody out

// Of the folder for the state, which should not be there yet.
Error whyItIsThere(const Directories& directories, const EntryName& name) {
  try {
    if (name.kind == Kind::kVm || openStateEntry(directories, name)) {
      return Error(ErrorCode::kAlreadyExists,
                   std::string("the logs and the outcome of an ended ") + name.noun() + " called " + name.text +
                       " are kept under that name",
                   name.command("rm"));
    }
    return notAnEntry(name, stateShown(directories, name));
  } catch (const Error& error) {
    return error;
  }
}

}  // namespace

Reservation Reservation::take(const Directories& directories, const EntryName& name) {
  name.validate();
  const std::string folder = name.folder();
  Reservation reservation;
  reservation.runtimeParent_ = duplicate(directories.runtimeFd());
  reservation.stateParent_ = duplicate(directories.stateFd());

  NameLock lock = NameLock::take(directories, name);
  if (lock.lives()) {
    throw Error(ErrorCode::kAlreadyExists, std::string("a ") + name.noun() + " called " + name.text + " is running",
                name.kind == Kind::kVm ? "choose another --name, or stop it" : "choose another name, or end it");
  }
  const auto giveUp = [&](const Error& error) {
    NameLock::removeEntry(directories.runtimeFd(), lock.folder(), folder);
    return error;
  };
  try {
    reap(directories, name, lock, ReapState::kByRecord);
  } catch (const Error& error) {
    // What a dead supervisor left stays for the next command; what was made here goes.
    throw error.code() == ErrorCode::kResourceExhausted ? giveUp(error) : error;
  }
  const std::string shown = stateShown(directories, name);
  if (::mkdirat(directories.stateFd(), folder.c_str(), 0700) != 0) {
    if (errno != EEXIST) {
      throw giveUp(systemError("making the folder " + shown, errno));
    }
    throw giveUp(whyItIsThere(directories, name));
  }
  try {
    reservation.stateEntry_ = openOwnFolder(directories.stateFd(), folder, shown);
    reservation.spare_ = duplicate(directories.stateFd());
  } catch (const Error& error) {
    ::unlinkat(directories.stateFd(), folder.c_str(), AT_REMOVEDIR);
    throw giveUp(error);
  }
  if (!reservation.stateEntry_ || !lock.becomeSupervisor()) {
    throw Error(ErrorCode::kInternal, "the entry " + folder + " was changed while it was being made");
  }
  reservation.name_ = name;
  reservation.folder_ = folder;
  reservation.runtimeEntry_ = lock.takeFolder();
  reservation.lock_ = lock.takeLock();
  return reservation;
}

Reservation::~Reservation() {
  release(false);
}

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  if (this != &other) {
    release(false);
    name_ = std::move(other.name_);
    folder_ = std::move(other.folder_);
    runtimeParent_ = std::move(other.runtimeParent_);
    stateParent_ = std::move(other.stateParent_);
    runtimeEntry_ = std::move(other.runtimeEntry_);
    stateEntry_ = std::move(other.stateEntry_);
    lock_ = std::move(other.lock_);
    spare_ = std::move(other.spare_);
  }
  return *this;
}

void Reservation::writeRecord(Record record) {
  record.kind = name_.kind;
  record.name = name_.text;
  // Nothing of it counts once the machine was off.
  replaceFile(runtimeEntry_.get(), kRecordFile, formatRecord(record), Durable::kNo);
}

void Reservation::writeState(std::string_view file, std::string_view content) {
  if (!isPlainFileName(file)) {
    throw Error(ErrorCode::kInvalidArgument, "not a name for a file of a VM's state");
  }
  replaceFile(stateEntry_.get(), std::string(file), content);
}

Fd Reservation::listenControl() {
  return listenIn(runtimeEntry_.get(), kControlSocket, kBacklog);
}

void Reservation::release(bool removeState) noexcept {
  if (!lock_) {
    return;
  }
  spare_.reset();  // looking through a folder takes a descriptor, and there may be no other
  // The state first and the lock last: dying in between leaves something that a reaper understands, and the name is
  // not free before all is gone.
  if (removeState) {
    emptyState(stateEntry_.get());
  }
  ::unlinkat(stateParent_.get(), folder_.c_str(), AT_REMOVEDIR);  // an empty one is of no use either
  emptyFolder(runtimeEntry_.get(), {}, kLockFile);
  NameLock::removeEntry(runtimeParent_.get(), runtimeEntry_.get(), folder_);
  lock_.reset();
  runtimeEntry_.reset();
  stateEntry_.reset();
}

}  // namespace vmmhost::runtime
