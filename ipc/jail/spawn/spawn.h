// Starts a process in its jail, be it a worker or another: everything that can be taken away is gone before its first
// instruction.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "vmmhost/confinement.h"
#include "vmmhost/error.h"
#include "vmmhost/fd.h"
#include "vmmhost/seccomp.h"

namespace vmmhost::spawn {

// Parts of the jail that a user may give up by name (`run --without`). Everything else is not up for choice.
inline constexpr std::string_view kPartNames[] = {"user-namespace", "net-namespace",          "cgroup-namespace",
                                                  "landlock",       "nested-namespace-limit", "session-keyring"};

// Always nosuid and nodev. A folder is bound with what is mounted below it.
struct Bind {
  std::string source;  // absolute, outside
  std::string target;  // absolute, inside
  // A regular file or folder that the caller has opened (O_PATH will do) and checked; it stays the caller's. This one
  // is bound: where `source` leads to another, or is a link, by the time that the root is built, the process is not
  // started. -1: whatever `source` leads to then. At most kMaxCheckedBinds have one.
  int descriptor = -1;
  bool readOnly = true;     // false takes a descriptor
  bool executable = false;  // false: noexec, so that nothing of it becomes executable memory either
};
inline constexpr std::size_t kMaxCheckedBinds = 32;

// Of a process: one of its own, one that exists already, or that of whoever starts it.
struct Namespace {
  enum class How { kNew, kJoined, kKept } how = How::kNew;
  int descriptor = -1;  // kJoined: as /proc/PID/ns/net is opened; it stays the caller's
};

inline constexpr int kMaxDescriptors = 256;  // of a worker that needs no more than others
inline constexpr int kMinDescriptors = 64;
// Signals of a worker that wait, which the kernel counts by user. Those that carry nothing, as pthread_kill's, arrive
// beyond it as well.
inline constexpr std::uint64_t kMaxPendingSignals = 64;

struct Jail {
  // kBinds: `binds` and nothing else, without programs: of what is there, only the worker itself and its loader can be
  // executed.
  enum class Root { kEmpty, kSystem, kBinds };
  Root root = Root::kEmpty;
  std::string loader;  // with kBinds: the path of one of them, which runs dynamic executables
  bool proc = false;
  bool dev = false;
  bool tmp = false;
  std::vector<Bind> binds;
  // Files that the worker, once it has been sent them, can open anew as /proc/self/fd/N, if their modes let it.
  std::vector<int> readable;
  seccomp::PolicyChoice seccompPolicy = "worker-static";
  // For policies with names; of others the grants say it.
  bool makesMemoryFiles = false;  // as workers of plugins before 1.2 may
  bool makesEpolls = false;       // as they may, and workers that are not built with the SDK
  // Host ids of the worker. The caller's own, or (as root) ids that no other process uses; never 0.
  uid_t uid = 0;
  gid_t gid = 0;
  // A limit is set to `value`, or to the caller's own hard limit where that is lower: nobody can raise it for another.
  // With less than `needed` the worker is of no use, and is refused.
  struct Rlimit {
    std::uint32_t resource;
    std::uint64_t value;
    std::uint64_t needed = 0;
  };
  // RLIMIT_NOFILE, at least kMinDescriptors; fewer than so many where the caller may not have them itself, but never
  // for that below kMaxDescriptors.
  int maxDescriptors = kMaxDescriptors;
  // With fewer it is of no use, and is refused.
  int neededDescriptors = kMinDescriptors;
  // Besides NOFILE, CORE, MEMLOCK, MSGQUEUE and SIGPENDING, which are always set; of the last a lower value holds.
  std::vector<Rlimit> rlimits;
  std::set<std::string> without;  // of kPartNames; `network` and `user` must be kNew for those that name them
  // Those of these two kinds; all others are always new. What is asked for here is the host's own doing: no plugin's
  // plan reaches it.
  //
  // A network can be joined by whoever has CAP_SYS_ADMIN over it: root, or an ordinary user who owns the user namespace
  // that owns the network. The latter names it in `user` (kJoined); it is entered first, and the process gets a user
  // namespace of its own right below. Root leaves `user` kNew. Who holds that user namespace with capabilities has
  // power over the process.
  Namespace network;
  Namespace user;
  // Capabilities (CAP_NET_ADMIN, CAP_NET_RAW, CAP_NET_BIND_SERVICE, and no others) that the process starts with, over a
  // user and a network namespace which must be its own, to set up the latter. Its bounding set is empty all the same.
  // It gives them up by endSetup() (vmmhost/setup_stage.h) before it reads any input, so that who looks at it then
  // finds none and one filter more: expectation() of the child asks for that.
  std::set<int> setupCapabilities;
  // Control groups to start in, see Cgroup.
  std::vector<int> cgroupTasks;  // v1: open `tasks` files
  int cgroupFolder = -1;         // v2: the folder
};

// The ids that the worker sees itself under.
inline constexpr uid_t kInsideUid = 1000;
inline constexpr gid_t kInsideGid = 1000;

struct Passed {
  int source;  // descriptor here
  int target;  // number there, below 200
};

struct Request {
  std::string name = "worker";  // of the process, behind an article in errors
  int executable = -1;          // opened O_RDONLY or O_PATH
  std::vector<std::string> argv;
  std::vector<Passed> descriptors;  // nothing else is open in the worker
  // Rings to start with (vmmhost/rings.h), on the descriptors from rings::kFirstDescriptor on; the last argument tells
  // the worker how many there are, which is fewer where the system offers none.
  unsigned rings = 0;
  // Instances of epoll to start with (vmmhost/epolls.h), on the descriptors behind those of the rings. An argument in
  // front of that of the rings tells the worker.
  unsigned epolls = 0;
  // Files that the process may execute besides, itself or in children: each is there from the start, on the descriptors
  // that vmmhost/programs.h tells it, and is executed by execveat(descriptor, "", ..., AT_EMPTY_PATH) alone. Their
  // numbers lie above its limit of descriptors, so that nothing else comes to have them, not even when they are closed.
  // At most programs::kMaxPrograms; with them `jail.rlimits` has RLIMIT_NPROC, and there is no /proc. Each is static,
  // or its loader is `jail.loader`.
  std::vector<int> programs;
  Jail jail;
  // Called when the process is there and before it does anything, for whoever is to follow it from its first step on.
  // What it throws is thrown, and the process is gone then. May be empty.
  std::function<void(pid_t process)> beforeStart;
};

// A child on its way into the jail, and afterwards. Destroying it kills and reaps it.
class Child {
 public:
  Child(Child&&) noexcept;
  Child& operator=(Child&&) noexcept;
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child();

  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_.get(); }
  // How it has to look from outside once it is executed (and has ended its set-up, if it has one), before it opens,
  // closes or starts anything and while it is dumpable.
  const confinement::Expectation& expectation() const { return expectation_; }

  // Readable (non-blocking) when the stub has executed the worker (end of file) or failed.
  int statusFd() const { return status_.get(); }
  // To be called when statusFd() is readable. nullopt: not yet. Otherwise true once executed; throws Error, which
  // names the part of the jail that could not be set up and, where there is one, the option that goes without it.
  std::optional<bool> executed();

  // How the process ended, once its pidfd is readable; reaps it. nullopt: it has not ended. Another thread of this
  // program may trace the process meanwhile.
  struct Exit {
    enum class Kind { kCode, kSignal, kUnknown } kind = Kind::kUnknown;
    int value = 0;
  };
  std::optional<Exit> reap();
  void kill() noexcept;

 private:
  friend Child begin(const Request& request);
  Child() = default;
  std::string name_;
  std::vector<std::string> binds_;  // what is bound, in the stub's order
  confinement::Expectation expectation_;
  pid_t pid_ = -1;
  Fd pidfd_;
  Fd status_;
  bool reaped_ = false;
  std::optional<Exit> exit_;
};

// Starts the child and returns as soon as it is on its way (a fraction of a millisecond). The thread that calls must
// outlive the child: its end kills the child (PR_SET_PDEATHSIG). Throws Error.
Child begin(const Request& request);

// A control group of one VM, where the caller may make one (v1 or v2); limits memory and the number of processes.
class Cgroup {
 public:
  // `name` becomes part of a folder name. Never throws for a system that offers none: then folders() is empty and
  // why() says what was found. `announce` is told the folders before the first one is made, so that somebody knows of
  // them if this process dies; what it throws is thrown.
  using Announce = std::function<void(const std::vector<std::string>& folders)>;
  static Cgroup make(std::string_view name, std::uint64_t memoryBytes, std::uint32_t maxProcesses,
                     const Announce& announce = {});
  Cgroup() = default;  // none
  Cgroup(Cgroup&&) noexcept = default;
  Cgroup& operator=(Cgroup&&) noexcept = default;
  ~Cgroup();

  const std::vector<std::string>& folders() const { return folders_; }
  // What Jail takes to start a process in the group. Both ways avoid the system-wide lock that moving a process from
  // outside takes, and with it an RCU grace period of 10 ms and more.
  std::vector<int> tasksDescriptors() const;
  int folderDescriptor() const { return v2_.get(); }
  const std::string& why() const { return why_; }
  // True when the kernel killed something in it for want of memory.
  bool outOfMemory() const;
  void remove() noexcept;

 private:
  std::vector<std::string> folders_;
  std::vector<Fd> tasks_;
  Fd v2_;
  std::string why_;
};

}  // namespace vmmhost::spawn
