// Where supervisors publish what they run, and how commands find it and clean up after dead ones.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host/runtime/entry_name.h"
#include "vmmhost/error.h"
#include "vmmhost/fd.h"

namespace vmmhost::runtime {

// The two folders of one user. Both are mode 0700 and owned by the caller (checked by fstat, refused otherwise);
// everything below is reached with openat and O_NOFOLLOW.
//   runtime: $VMMHOST_RUNTIME_DIR, else $XDG_RUNTIME_DIR/vmmhost if that folder is the caller's, else /run/vmmhost as
//            root, else /tmp/vmmhost-<uid>
//            ENTRY/lock (see name_lock.h), ENTRY/control (socket), ENTRY/record,
//            ENTRY/vsock (socket), ENTRY/vsock_PORT (sockets that others make)
//   state:   $VMMHOST_STATE_DIR, else /var/lib/vmmhost as root, else $XDG_STATE_HOME/vmmhost, else
//            ~/.local/state/vmmhost
//            ENTRY/console.log (and console.N.log of further consoles), ENTRY/vmmhost.log, ENTRY/exit.json,
//            ENTRY/config.json: kept until `rm`
// An entry is of a kind and a name, and ENTRY what EntryName::folder() says: the NAME of a VM, network@NAME of a
// network. What is done here to an entry is done to no other of the same name. What a network keeps begins with one of
// the last three files of its state, and goes with it: a folder without them is taken for somebody else's, see
// entry_folders.h. A process may die between any two steps of what is done here: the next command finds that and cleans
// up.
class Directories {
 public:
  struct Paths {
    std::string runtime;
    std::string state;
  };
  // From the environment of the caller. Empty strings where nothing is set up for it.
  static Paths defaultPaths();
  // Makes the folders if they are missing; clears away what embedding programs left that died. Throws Error.
  static Directories open(const Paths& paths);
  // The runtime folder alone, for a program that embeds.
  static Fd openRuntime(const std::string& path);

  int runtimeFd() const { return runtime_.get(); }
  int stateFd() const { return state_.get(); }
  const Paths& paths() const { return paths_; }

 private:
  Fd runtime_;
  Fd state_;
  Paths paths_;
};

// What a supervisor leaves where a later command can find it after the supervisor's death. Written before what it names
// is made, so that nothing is left that nobody knows of.
struct Record {
  Kind kind = Kind::kVm;  // as well where none is written, as it was before there were others
  std::string name;
  std::string backend;
  pid_t supervisorPid = 0;
  std::vector<std::string> cgroups;  // absolute folders to remove, deepest first; see cgroup_removal.h
  std::int64_t startedUnixMs = 0;
  bool removeOnEnd = false;
  std::uint32_t consoles = 0;  // that it will have logs of; 0: not known
};

// A name that is ours: from the moment the lock is held until release(), no other supervisor can take it.
class Reservation {
 public:
  // Makes ENTRY/ in both folders and locks it. Throws kAlreadyExists when a living supervisor has the name, or when
  // state of something ended is kept under it (hint: `vmmhost rm NAME`), kConfinement when what is there is not ours.
  // Entries of dead supervisors are reaped first.
  // The lock belongs to a descriptor that is close-on-exec: it ends with this process, and must not be handed on.
  static Reservation take(const Directories& directories, const EntryName& name);
  Reservation(Reservation&&) noexcept = default;
  Reservation& operator=(Reservation&&) noexcept;
  ~Reservation();  // release(false) if not released

  const EntryName& name() const { return name_; }
  int runtimeFd() const { return runtimeEntry_.get(); }
  int stateFd() const { return stateEntry_.get(); }
  // Kind and name are the reservation's own.
  void writeRecord(Record record);
  // Atomic: a temporary file in the state folder, synced and renamed. For exit.json and config.json.
  void writeState(std::string_view file, std::string_view content);
  // A listening, non-blocking socket at ENTRY/control, mode 0600.
  Fd listenControl();
  // Removes the runtime entry; the state as well if asked, or if nothing was written to it. The name is free then.
  // Never throws; idempotent.
  void release(bool removeState) noexcept;

 private:
  Reservation() = default;
  EntryName name_;
  std::string folder_;  // of the name
  Fd runtimeParent_, stateParent_, runtimeEntry_, stateEntry_, lock_;
  Fd spare_;  // a number to give back when descriptors have run out
};

// An entry as a command finds it.
struct Entry {
  EntryName name;
  bool alive = false;                   // the lock is held
  bool isChanging = false;              // another command is making, reaping or removing it: whether it lives is open
  std::optional<std::string> exitJson;  // of one that has ended
};

// All entries of a kind, sorted by name. Dead ones are reaped on the way: their cgroups and runtime folder removed, an
// exit.json written that says so (Outcome of schemas/host.capnp: kind supervisorDied, exitCode 125) unless there is
// one, or the state removed if the record says removeOnEnd. Never blocks on a living supervisor, nor for long on other
// commands: an entry that one of them is changing is listed as that (isChanging, and alive).
std::vector<Entry> list(const Directories& directories, Kind kind);
// One entry; throws kNotFound naming it (the hint lists similar names or `vmmhost ps -a`), and kUnavailable where
// another command is changing it all the time (see NameLock::take).
Entry find(const Directories& directories, const EntryName& name);
// Connects to ENTRY/control of a living entry, without a long path: through the entry's folder descriptor. The peer's
// credentials are checked to be the caller's user or root. The socket is non-blocking. Throws kNotFound,
// kFailedPrecondition for an ended entry, kUnavailable (retryable) for a supervisor that is starting, ending or
// stopped.
Fd connectControl(const Directories& directories, const EntryName& name);
// Connects to the socket of a living entry that reaches its guest's vsock ports (ENTRY/vsock); non-blocking. Throws
// kNotFound for a VM that is not there, kFailedPrecondition for an ended one or one without such a socket,
// kUnavailable.
Fd connectVsock(const Directories& directories, const EntryName& name);
// The same as connectControl; waits up to `limit` for a supervisor that is starting or ending to take commands or to be
// gone. Blocks.
Fd awaitControl(const Directories& directories, const EntryName& name, std::chrono::milliseconds limit);
// The file of the state folder that keeps what consoles[port] says: "console.log", "console.1.log".
std::string consoleLogName(std::uint32_t port);
// Opens a file of the state folder of an entry read-only, e.g. "console.log". Throws kNotFound.
Fd openState(const Directories& directories, const EntryName& name, std::string_view file);
// Removes the state of an ended entry. Throws kFailedPrecondition when it lives (hint: stop it first), kNotFound.
void remove(const Directories& directories, const EntryName& name);

// A user id that no other living VM of this machine uses, when running as root: kFirstUid + N, held by a lock on
// kMachineFolder/.uids/N, wherever the VM's own runtime folder is. The folders are root's own and private, as checked.
class UidLease {
 public:
  // Far above what login.defs hands out, and between two ranges of systemd's (its docs/UIDS-GIDS.md): that of
  // containers, 0x80000 to 0x6fffffff, and that of foreign ids, from 0x7ffe0000 on.
  static constexpr uid_t kFirstUid = 0x76480000;
  static constexpr uid_t kCount = 65536;
  static constexpr char kMachineFolder[] = "/run/vmmhost";
  // `folder`: another one for tests; its parent exists. Throws Error.
  static UidLease take(const std::string& folder = kMachineFolder);
  UidLease(UidLease&&) noexcept = default;
  UidLease& operator=(UidLease&&) noexcept;
  ~UidLease();
  uid_t uid() const { return uid_; }  // and the gid of the same number

 private:
  UidLease() = default;
  uid_t uid_ = 0;
  Fd parent_, lock_;
};

}  // namespace vmmhost::runtime
