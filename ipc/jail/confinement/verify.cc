#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <iterator>
#include <map>
#include <optional>
#include <set>

#include "ipc/jail/confinement/proc_reader.h"
#include "vmmhost/confinement.h"

namespace vmmhost::confinement {
namespace {

constexpr std::size_t kStatusBytes = 16384;
constexpr std::size_t kMountinfoBytes = 262144;
constexpr int kMaxRounds = 16;
constexpr std::size_t kMaxThreads = 4096;
constexpr std::uint64_t kSeccompModeFilter = 2;
constexpr std::array<const char*, 7> kNamespaces = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"};

std::string hex(std::uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

std::string told(const std::optional<std::uint64_t>& value) {
  return value ? std::to_string(*value) : std::string("not told");
}

std::string list(const std::vector<int>& numbers) {
  std::string text;
  for (const int number : numbers) {
    text += (text.empty() ? "" : " ") + std::to_string(number);
  }
  return text.empty() ? "none" : text;
}

class Verifier {
 public:
  explicit Verifier(const Expectation& expected) : expected_(expected), process_(expected.pid) {}

  Report run() {
    if (!process_) {
      violation("the process cannot be looked at: " + process_.error());
      return std::move(report_);
    }
    checkNamespaces();
    checkThreads(process_, "");
    checkExecutable();
    checkMounts();
    checkDescriptors();
    checkDumpable();
    if (expected_.includeDescendants) {
      checkDescendants();
    }
    return std::move(report_);
  }

 private:
  void violation(std::string text) { report_.violations.push_back(std::move(text)); }
  void verified(std::string text) { report_.verified.push_back(std::move(text)); }

  // Runs `check` and says `text` if it found nothing wrong.
  template <typename Check>
  void part(const std::string& text, Check check) {
    const std::size_t before = report_.violations.size();
    check();
    if (report_.violations.size() == before) {
      verified(text);
    }
  }

  void checkNamespaces() {
    checkHostNamespaces("namespaces of its own:", expected_.newNamespaces, [&](const auto& name, bool isHosts) {
      if (isHosts) {
        violation("the " + name + " namespace is that of the host (" + theirs_ + ")");
      }
    });
    checkHostNamespaces("namespaces of the host on purpose:", expected_.keptNamespaces,
                        [&](const auto& name, bool isHosts) {
                          if (!isHosts) {
                            violation("the " + name + " namespace is " + theirs_ + ", expected that of the host");
                          }
                        });
    for (const auto& [name, wanted] : expected_.joinedNamespaces) {
      part("namespace joined: " + wanted, [&, name = name, wanted = wanted] {
        const auto theirs = process_.link(("ns/" + name).c_str());
        if (!theirs || *theirs != wanted) {
          violation("the " + name + " namespace is " + theirs.value_or("not told: " + process_.error()) +
                    ", expected the one to be joined (" + wanted + ")");
        }
      });
    }
    if (!expected_.userNamespaceParent.empty()) {
      part("user namespace below " + expected_.userNamespaceParent, [&] {
        const auto parent = process_.parentNamespace("ns/user");
        if (!parent || *parent != expected_.userNamespaceParent) {
          violation("its user namespace lies below " + parent.value_or("one that is not told: " + process_.error()) +
                    ", expected " + expected_.userNamespaceParent);
        }
      });
    }
  }

  template <typename Check>
  void checkHostNamespaces(std::string text, const std::vector<std::string>& names, Check check) {
    if (names.empty()) {
      return;
    }
    for (const std::string& name : names) {
      text += " " + name;
    }
    part(text, [&] {
      for (const std::string& name : names) {
        const auto own = ownNamespace(name);
        const auto theirs = process_.link(("ns/" + name).c_str());
        if (!own || !theirs) {
          violation("the " + name + " namespace cannot be told: " + (own ? process_ : *self_).error());
        } else {
          theirs_ = *theirs;
          check(name, *own == *theirs);
        }
      }
    });
  }

  std::optional<std::string> ownNamespace(const std::string& name) {
    for (const auto& [known, link] : expected_.hostNamespaces) {
      if (known == name) {
        return link;
      }
    }
    if (!self_) {
      self_.emplace(::getpid());
    }
    return self_->link(("ns/" + name).c_str());
  }

  void checkIds(const ThreadStatus& status, const std::string& who) {
    const auto check = [&](const char* what, const auto& ids, std::uint64_t wanted) {
      if (!ids) {
        violation(who + ": its " + what + " were not told");
        return;
      }
      for (const std::uint64_t id : *ids) {
        if (id != wanted) {
          violation(who + ": its " + what + " are " + std::to_string((*ids)[0]) + " " + std::to_string((*ids)[1]) +
                    " " + std::to_string((*ids)[2]) + " " + std::to_string((*ids)[3]) + ", expected " +
                    std::to_string(wanted));
          return;
        }
      }
    };
    check("user ids", status.uids, expected_.hostUid);
    check("group ids", status.gids, expected_.hostGid);
    // Only root can take supplementary groups away; an ordinary user's worker keeps those of its starter.
    if (::geteuid() == 0 && status.groups.value_or(1) != 0) {
      violation(who + ": it has supplementary groups");
    }
  }

  void checkStatus(const ThreadStatus& status, const std::string& who) {
    checkIds(status, who);
    if (expected_.seccomp) {
      if (status.seccomp != kSeccompModeFilter) {
        violation(who + ": Seccomp is " + told(status.seccomp) + ", expected 2 (filter)");
      } else if (status.seccompFilters && *status.seccompFilters < expected_.minimumFilters) {
        violation(who + ": " + told(status.seccompFilters) + " seccomp filters, expected at least " +
                  std::to_string(expected_.minimumFilters));
      }
    }
    if (expected_.noNewPrivileges && status.noNewPrivileges != 1u) {
      violation(who + ": NoNewPrivs is " + told(status.noNewPrivileges) + ", expected 1");
    }
    if (expected_.noCapabilities) {
      for (std::size_t i = 0; i < kCapabilitySets.size(); ++i) {
        if (status.capabilities[i] != 0u) {
          violation(who + ": " + std::string(kCapabilitySets[i]) + " is " +
                    (status.capabilities[i] ? hex(*status.capabilities[i]) : "not told") + ", expected none");
        }
      }
    }
  }

  // A thread can start others while they are looked at: until one look at the list finds no number that was not
  // checked already. Filters, no_new_privs and lost capabilities pass on to what a checked thread starts, but a thread
  // not yet checked may have started it.
  void checkThreads(ProcReader& process, const std::string& which) {
    const std::size_t before = report_.violations.size();
    std::set<int> checked;
    std::map<int, bool> gone;
    for (int round = 0; round < kMaxRounds; ++round) {
      const auto threads = process.numbers("task");
      if (!threads) {
        violation(which + "its threads cannot be listed: " + process.error());
        return;
      }
      if (threads->empty()) {
        violation(which + "it has ended");
        return;
      }
      bool isNew = false;
      for (const int thread : *threads) {
        if (checked.count(thread) != 0) {
          continue;
        }
        isNew = true;
        if (checked.size() >= kMaxThreads) {
          violation(which + "it has more than " + std::to_string(kMaxThreads) + " threads");
          return;
        }
        checked.insert(thread);
        const auto text = process.text(("task/" + std::to_string(thread) + "/status").c_str(), kStatusBytes);
        if (text) {
          checkStatus(parseStatus(*text), which + "thread " + std::to_string(thread));
        } else {
          gone[thread] = true;  // ended meanwhile, which the next look at the list confirms
        }
      }
      for (const int thread : *threads) {
        if (!isNew && gone.count(thread) != 0) {
          violation(which + "thread " + std::to_string(thread) + " cannot be looked at: " + process.error());
        }
      }
      if (!isNew) {
        if (report_.violations.size() == before) {
          sayThreads(which, checked.size() - gone.size());
        }
        return;
      }
    }
    violation(which + "its threads keep changing");
  }

  void sayThreads(const std::string& which, std::size_t threads) {
    const std::string count = " on " + std::to_string(threads) + " of " + std::to_string(threads) + " threads";
    verified(which + "ids: uid " + std::to_string(expected_.hostUid) + " gid " + std::to_string(expected_.hostGid) +
             count);
    if (expected_.seccomp) {
      verified(which + "seccomp: filter" + count);
    }
    if (expected_.noNewPrivileges) {
      verified(which + "no new privileges" + count);
    }
    if (expected_.noCapabilities) {
      verified(which + "capabilities: none" + count);
    }
  }

  void checkExecutable() {
    if (expected_.executableInode == 0 && expected_.executableDevice == 0) {
      return;
    }
    part("executable: the planned file", [&] {
      const auto file = process_.status("exe");
      if (!file) {
        violation("its executable cannot be told: " + process_.error());
      } else if (file->st_dev != expected_.executableDevice || file->st_ino != expected_.executableInode) {
        violation("its executable is file " + std::to_string(file->st_dev) + ":" + std::to_string(file->st_ino) +
                  ", expected " + std::to_string(expected_.executableDevice) + ":" +
                  std::to_string(expected_.executableInode));
      }
    });
  }

  void checkMounts() {
    if (!expected_.rootIsReadOnly) {
      return;
    }
    const auto text = process_.text("mountinfo", kMountinfoBytes);
    if (!text) {
      violation("its mounts cannot be told: " + process_.error());
      return;
    }
    const std::vector<Mount> mounts = parseMountinfo(*text);
    part("root: read-only tmpfs, " + std::to_string(expected_.mounts.size()) + " more mounts as planned", [&] {
      checkRoot(mounts);
      for (const Mount& mount : mounts) {
        if (mount.target != "/") {
          checkMount(mount);
        }
      }
      for (const ExpectedMount& wanted : expected_.mounts) {
        const auto isIt = [&](const Mount& mount) { return mount.target == wanted.target; };
        if (std::none_of(mounts.begin(), mounts.end(), isIt)) {
          violation("the mount " + wanted.target + " is missing");
        }
      }
    });
  }

  void checkRoot(const std::vector<Mount>& mounts) {
    const auto isRoot = [](const Mount& mount) { return mount.target == "/"; };
    const auto count = std::count_if(mounts.begin(), mounts.end(), isRoot);
    if (count != 1) {
      violation("there are " + std::to_string(count) + " mounts at /, expected 1");
      return;
    }
    const Mount& root = *std::find_if(mounts.begin(), mounts.end(), isRoot);
    if (root.type != "tmpfs") {
      violation("the root is a " + root.type + ", expected a tmpfs");
    }
    if (!root.readOnly) {
      violation("the root is writable");
    }
  }

  void checkMount(const Mount& mount) {
    // A bind is recursive: what is mounted below it outside appears inside, and must be as read-only as it is.
    const auto covers = [&](const ExpectedMount& wanted) {
      return mount.target == wanted.target || mount.target.rfind(wanted.target + "/", 0) == 0;
    };
    const ExpectedMount* best = nullptr;
    for (const ExpectedMount& wanted : expected_.mounts) {
      if (covers(wanted) && (best == nullptr || wanted.target.size() > best->target.size())) {
        best = &wanted;
      }
    }
    if (best == nullptr || (mount.target != best->target && !best->readOnly)) {
      violation("there is an unplanned mount at " + mount.target + " (" + mount.type + ")");
      return;
    }
    if (best->readOnly && !mount.readOnly) {
      violation("the mount " + mount.target + " is writable");
    }
    if (best->writable && mount.readOnly) {
      violation("the mount " + mount.target + " is read-only, planned was a writable one");
    }
    if (best->noSetuid && !mount.noSetuid) {
      violation("the mount " + mount.target + " is not nosuid");
    }
    if (best->noDevices && !mount.noDevices) {
      violation("the mount " + mount.target + " is not nodev");
    }
    if (best->noExecution && !mount.noExecution) {
      violation("the mount " + mount.target + " is not noexec");
    }
    if (mount.target == best->target && !best->type.empty() && mount.type != best->type) {
      violation("the mount " + mount.target + " is a " + mount.type + ", expected " + best->type);
    }
  }

  void checkDescriptors() {
    if (!expected_.descriptors) {
      return;
    }
    std::vector<int> wanted = *expected_.descriptors;
    std::sort(wanted.begin(), wanted.end());
    part("descriptors: exactly " + list(wanted), [&] {
      const auto open = process_.numbers("fd");
      if (!open) {
        violation("its descriptors cannot be listed: " + process_.error());
        return;
      }
      std::vector<int> counted;
      std::copy_if(open->begin(), open->end(), std::back_inserter(counted), [&](int number) {
        return std::binary_search(wanted.begin(), wanted.end(), number) ||
               !(isRing(number) || isOwnEventDescriptor(number));
      });
      if (counted != wanted) {
        violation("its descriptors are " + list(counted) + ", expected " + list(wanted));
      }
    });
  }

  bool isRing(int number) {
    if (number < expected_.firstRing || number >= expected_.firstRing + static_cast<int>(expected_.rings)) {
      return false;
    }
    return process_.link(("fd/" + std::to_string(number)).c_str()) == "anon_inode:[io_uring]";
  }

  // What an event loop makes for itself: these lead to nothing outside the process.
  bool isOwnEventDescriptor(int number) {
    if (!expected_.eventDescriptorsAllowed) {
      return false;
    }
    const auto target = process_.link(("fd/" + std::to_string(number)).c_str());
    return target && (*target == "anon_inode:[eventpoll]" || *target == "anon_inode:[eventfd]" ||
                      *target == "anon_inode:[signalfd]" || *target == "anon_inode:[timerfd]");
  }

  // Files below /proc/PID belong to the process's effective uid while it may be dumped, and to uid 0 of its user
  // namespace otherwise, or to the system's uid 0 where that namespace maps none (fs/proc/base.c, task_dump_owner).
  void checkDumpable() {
    if (!expected_.nonDumpable) {
      return;
    }
    part("non-dumpable", [&] {
      const auto file = process_.status("status");
      if (!file) {
        violation("whether it can be dumped cannot be told: " + process_.error());
      } else if (expected_.hostUid == 0) {
        violation("whether it can be dumped cannot be told: it runs under uid 0");
      } else if (file->st_uid == expected_.hostUid) {
        violation("it is dumpable");
      }
    });
  }

  // Every process whose chain of parents leads to the worker. The worker is the first process of its PID namespace, so
  // that orphans come back to it.
  std::vector<int> descendants() {
    std::vector<int> family{expected_.pid};
    for (std::size_t i = 0; i < family.size() && family.size() <= kMaxThreads; ++i) {
      ProcReader parent(family[i]);
      const auto threads = parent ? parent.numbers("task") : std::nullopt;
      for (const int thread : threads.value_or(std::vector<int>{})) {
        const auto text = parent.text(("task/" + std::to_string(thread) + "/children").c_str(), kStatusBytes);
        for (const int child : parseNumbers(text.value_or(""))) {
          family.push_back(child);
        }
      }
    }
    family.erase(family.begin());
    return family;
  }

  // The same on a kernel without task/TID/children (CONFIG_PROC_CHILDREN): every process of the system is asked.
  std::vector<int> descendantsAmongAll() {
    std::vector<int> family{expected_.pid};
    ProcReader self(::getpid());
    const auto all = self.numbers("..");
    if (!all) {
      violation("the processes of the system cannot be listed: " + self.error());
      return {};
    }
    std::map<int, std::vector<int>> children;
    for (const int pid : *all) {
      ProcReader process(pid);
      if (const auto text = process ? process.text("status", kStatusBytes) : std::nullopt) {
        children[static_cast<int>(parseStatus(*text).parent.value_or(0))].push_back(pid);
      }
    }
    for (std::size_t i = 0; i < family.size(); ++i) {
      const std::vector<int>& more = children[family[i]];
      family.insert(family.end(), more.begin(), more.end());
    }
    family.erase(family.begin());
    return family;
  }

  void checkProgram(ProcReader& process, int pid) {
    if (expected_.programs.empty()) {
      return;
    }
    const auto file = process.status("exe");
    const auto isIt = [&](std::uint64_t device, std::uint64_t inode) {
      return file->st_dev == device && file->st_ino == inode;
    };
    if (!file) {
      const auto text = process.text("status", kStatusBytes);
      if (text && parseStatus(*text).isZombie) {
        return;
      }
      violation("process " + std::to_string(pid) + ": its executable cannot be told: " + process.error());
    } else if (!isIt(expected_.executableDevice, expected_.executableInode) &&
               std::none_of(expected_.programs.begin(), expected_.programs.end(),
                            [&](const ExpectedFile& program) { return isIt(program.device, program.inode); })) {
      violation("process " + std::to_string(pid) + ": its executable is file " + std::to_string(file->st_dev) + ":" +
                std::to_string(file->st_ino) + ", which is none of the planned programs");
    }
  }

  void checkDescendants() {
    ProcReader self(::getpid());
    const std::string ownList = "task/" + std::to_string(::getpid()) + "/children";
    const bool hasLists = self.text(ownList.c_str(), kStatusBytes).has_value();
    std::set<int> checked;
    for (int round = 0; round < kMaxRounds; ++round) {
      bool isNew = false;
      for (const int pid : hasLists ? descendants() : descendantsAmongAll()) {
        if (!checked.insert(pid).second) {
          continue;
        }
        isNew = true;
        const std::size_t before = report_.violations.size();
        ProcReader process(pid);
        if (process) {
          checkThreads(process, "process " + std::to_string(pid) + ": ");
          checkProgram(process, pid);
        }
        if (report_.violations.size() != before && !process.text("status", kStatusBytes)) {
          report_.violations.resize(before);  // it ended while it was looked at
        }
      }
      if (!isNew) {
        return;
      }
    }
    violation("its processes keep changing");
  }

  const Expectation& expected_;
  ProcReader process_;
  std::optional<ProcReader> self_;
  std::string theirs_;  // the namespace that is looked at
  Report report_;
};

}  // namespace

Namespaces hostNamespaces() {
  ProcReader self(::getpid());
  Namespaces all;
  for (const char* name : kNamespaces) {
    if (auto link = self.link((std::string("ns/") + name).c_str())) {
      all.emplace_back(name, std::move(*link));
    }
  }
  return all;
}

Report verify(const Expectation& expected) {
  return Verifier(expected).run();
}

}  // namespace vmmhost::confinement
