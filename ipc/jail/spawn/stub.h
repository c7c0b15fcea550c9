// What happens in the child between clone3 and exec: only system calls on values prepared before. Internal.
#pragma once

#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/sched.h>
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace vmmhost::spawn {

// Numbers that the stub uses for its own descriptors. The executable sits at RLIMIT_NOFILE (Plan::executableSlot): once
// exec closed it, no descriptor of that number can be made again, so that the filter's one permitted execveat is spent.
inline constexpr int kRulesetSlot = 252;  // the lowest
inline constexpr int kParentSlot = 253;
inline constexpr int kExecutableRest = 254;  // until it gets there
inline constexpr int kStatusSlot = 255;
inline constexpr int kProgramRest = 280;  // and behind it: programs, until they get behind the executable
inline constexpr int kFirstSpare = 298;

// Where the jail has what /proc is to have: beside the processes, which are mounted below it, one setting that QEMU has
// to know before it reserves no memory in advance.
inline constexpr char kProcMount[] = "/proc/processes";
inline constexpr char kOvercommitFile[] = "/proc/sys/vm/overcommit_memory";

enum class Stage : std::uint32_t {
  kNone,
  kStart,
  kJoinUser,
  kJoinNetwork,
  kJoinClone,
  kJoinIds,
  kCgroup,
  kCgroupNamespace,
  kDescriptors,
  kIds,
  kSession,
  kKeyring,
  kNestedLimit,
  kHostname,
  kMountPrivate,
  kMountRoot,
  kMountBind,
  kBindOpen,
  kBindChanged,
  kBindAttach,
  kMountAttributes,
  kMountProc,
  kMountDev,
  kMountTmp,
  kPivot,
  kReadOnly,
  kEpolls,
  kLimits,
  kSignals,
  kCapabilities,
  kSetupCapabilities,
  kNoNewPrivs,
  kParentDeath,
  kLandlock,
  kSeccomp,
  kExec,
  kCount
};

struct Report {
  Stage stage = Stage::kNone;
  std::int32_t errnoValue = 0;
  std::uint32_t index = 0;  // which bind, which limit
};

// What a file is known by, however it is opened. No mount: its number is another in each mount namespace.
struct FileIdentity {
  std::uint32_t deviceMajor = 0, deviceMinor = 0;
  std::uint64_t inode = 0;
  std::uint32_t type = 0;     // S_IFMT of its mode
  std::uint32_t isMount = 0;  // 1: the root of a mount, where statx tells
  bool operator==(const FileIdentity&) const = default;
};

// Everything the stub needs, made by the parent; read only in the child.
struct Plan {
  struct Directory {
    std::string path;
  };  // relative to the new root
  struct Link {
    std::string path, target;
  };
  struct Mount {
    std::string source, target;
    bool isFile = false;
    bool device = false;
    bool readOnly = true;
    bool executable = true;
    bool isChecked = false;  // `source` must be what `identity` says
    FileIdentity identity = {};
    // MOUNT_ATTR_*
    std::uint64_t attributes() const noexcept;
  };
  struct Limit {
    std::uint32_t resource;
    std::uint64_t value;
  };
  struct Descriptor {
    int source, target;
  };

  bool root = false;  // started by root: drop supplementary groups
  bool system = false, binds = false, proc = false, dev = false, tmp = false;
  bool newNetwork = true;
  int joinUser = -1, joinNetwork = -1;  // namespaces
  std::uint64_t setupCapabilities = 0;  // bits
  bool userNamespace = true, cgroupNamespace = true, nestedLimit = true, keyring = true, landlock = true;
  std::vector<Directory> directories;
  std::vector<Link> links;
  std::vector<Mount> mounts;  // bind mounts; devices last
  std::vector<Limit> limits;
  std::vector<Descriptor> descriptors;
  std::vector<int> readable;  // files, by descriptors of whoever starts it, that can be opened anew as /proc/self/fd/N
  char overcommit = '0';      // vm.overcommit_memory
  std::string loader;  // inside; empty: none. It can be executed, other files cannot, unless the root is `system`
  std::vector<sock_filter> filter;
  std::vector<char*> argv;  // ends with null
  unsigned rings = 0;
  char* ringsArgument = nullptr;  // of argv: to be written by the stub
  unsigned epolls = 0;
  int firstEpoll = 0;
  std::vector<int> cgroupTasks;
  int executable = -1;
  int executableSlot = 0;
  std::vector<int> programs;  // to be on the numbers behind executableSlot
  int status = -1;
  int go = -1;
  int parent = -1;  // a pidfd of the process that makes this plan; -1 where there are none
  int lastCapability = 40;
  uid_t uid = 0;  // to become, inside
  gid_t gid = 0;
  std::uint64_t landlockFs = 0, landlockNet = 0, landlockScope = 0;
};

// Never returns.
[[noreturn]] void runStub(const Plan& plan) noexcept;

// What the process that joins namespaces and starts the stub there (join_linux.cc) tells before it ends: the stub's
// pid, -1 if there is none, and what went wrong if anything did.
struct JoinReport {
  Report report;
  pid_t pid = -1;
};
// Never returns; `stub` is how the stub's process is to be made, and `end` where the report goes.
[[noreturn]] void runJoiner(const Plan& plan, clone_args stub, int end) noexcept;

// binds_linux.cc. Async-signal-safe; 0 or an errno value.
int identify(int file, FileIdentity& identity) noexcept;
// What a checked bind's source leads to now, or an errno value below 0: -ESTALE for another file than the one checked.
int openChecked(const Plan::Mount& mount) noexcept;
// Binds the file or folder, as a tree of its own that has its attributes before it is attached. Closes `file`.
int attachTree(int file, const Plan::Mount& mount) noexcept;

// landlock_linux.cc. Async-signal-safe. A ruleset with rules for plan.readable, or an errno value below 0; and 0 or an
// errno value, the ruleset closed.
int landlockAbi() noexcept;
void fillLandlock(Plan& plan, int abi);
int makeRuleset(const Plan& plan) noexcept;
int restrictByLandlock(const Plan& plan, int ruleset) noexcept;

}  // namespace vmmhost::spawn
