// Looks at a process from outside and tells whether it is confined as its launch plan says.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace vmmhost::confinement {

// One mount that the process is expected to see, besides its root.
struct ExpectedMount {
  std::string target;    // as mountinfo shows it, e.g. "/usr"
  std::string type;      // file system type; empty: any
  bool readOnly = true;  // false: it may be either
  // A share that is written to on purpose: it must be writable, so that a plan and what came of it agree. With
  // `readOnly` false.
  bool writable = false;
  // Each must be so; false: not looked at.
  bool noSetuid = false;
  bool noDevices = false;
  bool noExecution = false;
};

struct ExpectedFile {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
};

// Name of a namespace, e.g. "net", and what /proc says that it is: "net:[4026531840]".
using Namespaces = std::vector<std::pair<std::string, std::string>>;

// Those of this process: for whoever looks at a process more than once. What cannot be told is left out. Any thread.
Namespaces hostNamespaces();

// What /proc says that the namespace is which a descriptor of this process is open for; empty: it is for none.
std::string namespaceOf(int descriptor);

struct Expectation {
  pid_t pid = 0;                       // in this process's PID namespace
  uid_t hostUid = 0;                   // real, effective, saved and file system ids, as seen from here
  gid_t hostGid = 0;                   // as well; where this process is root there are no supplementary groups either
  std::uint64_t executableDevice = 0;  // /proc/PID/exe must be this file; 0: not checked
  std::uint64_t executableInode = 0;
  std::vector<std::string> newNamespaces;   // each must differ from this process's own: "user", "mnt", "pid", ...
  Namespaces joinedNamespaces;              // each must be exactly this one
  std::vector<std::string> keptNamespaces;  // each must be this process's own, on purpose
  std::string userNamespaceParent;          // what its user namespace lies right below; empty: not looked at
  bool rootIsReadOnly = true;               // the mount at "/" is a tmpfs and read-only
  // Exactly these besides "/", looked at with rootIsReadOnly. What a recursive bind brought along below a read-only
  // one of them is accepted if it is read-only too, and has what the other flags ask for.
  std::vector<ExpectedMount> mounts;
  bool seccomp = true;          // each thread: Seccomp 2
  unsigned minimumFilters = 1;  // each thread: Seccomp_filters (where the kernel tells it)
  bool noNewPrivileges = true;
  bool noCapabilities = true;  // inheritable, permitted, effective, bounding, ambient all 0
  bool nonDumpable = false;    // expected after confirm; cannot be told of a process under uid 0
  // Exactly these numbers are open; absent: not looked at. An ordinary user can look only while it is dumpable.
  std::optional<std::vector<int>> descriptors;
  // Besides them the process may have made epoll, eventfd, signalfd and timerfd descriptors of its own.
  bool eventDescriptorsAllowed = false;
  // And so many rings of io_uring, or fewer, may be open from this number on.
  int firstRing = 0;
  unsigned rings = 0;
  // Children (a worker that starts programs): every process whose parent chain leads to pid is checked for ids,
  // seccomp, no_new_privs and capabilities as well.
  bool includeDescendants = false;
  // With them: each of these processes runs one of these files or the executable. Empty: not looked at.
  std::vector<ExpectedFile> programs;
  // This process's own, to compare newNamespaces with; what is not among them is read.
  Namespaces hostNamespaces;
};

struct Report {
  std::vector<std::string> verified;    // one line a part, e.g. "seccomp: filter on 2 of 2 threads"
  std::vector<std::string> violations;  // empty: confined as expected; else one sentence each, with what was found
};

// Reads /proc only; takes well under a millisecond for one thread. Threads that come and go while it looks are looked
// at again, up to a bound. Never throws for what the process does: a process that is gone is a violation. The caller
// must not have reaped the process, so that its number is not another's. Any thread; keeps no state.
Report verify(const Expectation& expected);

}  // namespace vmmhost::confinement
