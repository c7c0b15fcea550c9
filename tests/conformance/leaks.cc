#include "tests/conformance/leaks.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <thread>

#include "tests/support/control_groups.h"

namespace vmmhost::conformance {

namespace {

namespace fs = std::filesystem;

std::string readFile(const fs::path& path) {
  std::ifstream in(path);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

struct Process {
  pid_t parent = 0;
  bool zombie = false;
};

std::map<pid_t, Process> processes() {
  std::map<pid_t, Process> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) {
      continue;
    }
    const std::string stat = readFile(entry.path() / "stat");
    const std::size_t end = stat.rfind(')');  // the name in brackets may hold anything
    if (end == std::string::npos) {
      continue;
    }
    std::istringstream fields(stat.substr(end + 1));
    std::string state;
    Process process;
    fields >> state >> process.parent;
    process.zombie = state == "Z" || state == "X";
    found[static_cast<pid_t>(std::stol(name))] = process;
  }
  return found;
}

// Kind and number: "3 socket:[123]".
std::set<std::string> openDescriptors() {
  std::set<std::string> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc/self/fd", error)) {
    const std::string target = fs::read_symlink(entry.path(), error).string();
    if (!error && target.find("/proc/") != 0) {  // not the folder that is being read
      found.insert(entry.path().filename().string() + ' ' + target);
    }
  }
  return found;
}

std::size_t threadCount() {
  std::error_code error;
  std::size_t count = 0;
  for (const auto& entry : fs::directory_iterator("/proc/self/task", error)) {
    count += entry.path().empty() ? 0 : 1;
  }
  return count;
}

std::size_t threadsOfThen() {
#ifdef VMMHOST_SANITIZED
  std::thread([] {}).join();  // with the first one ThreadSanitizer starts one of its own
#endif
  return threadCount();
}

// Their names end with the number of the process that hosts the VM.
std::set<std::string> cgroupsOf(const std::vector<pid_t>& hostPids) {
  std::set<std::string> found;
  for (const std::string& folder : tests::controlGroups()) {
    const bool ours = std::any_of(hostPids.begin(), hostPids.end(),
                                  [&](pid_t pid) { return folder.ends_with('-' + std::to_string(pid)); });
    if (ours) {
      found.insert(folder);
    }
  }
  return found;
}

// Entries of VMs; what begins with a dot belongs to the folder itself.
std::set<std::string> runtimeEntries(const std::string& folder) {
  std::set<std::string> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename();
    if (name[0] != '.') {
      found.insert(name);
    }
  }
  return found;
}

// VMs whose workers made a call that their jail forbids.
std::set<std::string> endedByTheirFilters(const std::string& folder) {
  std::set<std::string> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (readFile(entry.path() / "exit.json").find("ended by SIGSYS") != std::string::npos) {
      found.insert(entry.path().filename());
    }
  }
  return found;
}

// Their files. In /proc/net/unix they have no path, since they are bound through descriptors of their folders.
std::set<std::string> socketsBelow(const std::string& folder) {
  std::set<std::string> found;
  std::error_code error;
  for (fs::recursive_directory_iterator next(folder, error), end; !error && next != end; next.increment(error)) {
    std::error_code ignored;
    if (next->symlink_status(ignored).type() == fs::file_type::socket) {
      found.insert(next->path().string());
    }
  }
  return found;
}

// Whether there are children. Orphans fall to this process: without a child it has no descendant at all, which is found
// out for less than by looking at every process there is.
bool reapChildren() {
  for (;;) {
    const pid_t pid = ::waitpid(-1, nullptr, WNOHANG);
    if (pid == 0) {
      return true;
    }
    if (pid < 0 && errno != EINTR) {
      return false;
    }
  }
}

}  // namespace

void adoptOrphans() {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

std::vector<pid_t> descendants(pid_t ancestor) {
  const auto all = processes();
  std::set<pid_t> family = {ancestor};
  for (bool grown = true; grown;) {
    grown = false;
    for (const auto& [pid, process] : all) {
      grown = (family.count(process.parent) != 0 && family.insert(pid).second) || grown;
    }
  }
  std::vector<pid_t> living;
  for (const pid_t pid : family) {
    const auto found = all.find(pid);
    if (pid != ancestor && found != all.end() && !found->second.zombie) {
      living.push_back(pid);
    }
  }
  return living;
}

std::string processName(pid_t pid) {
  std::string name = readFile("/proc/" + std::to_string(pid) + "/comm");
  return name.empty() ? name : name.substr(0, name.size() - 1);
}

void removeControlGroups(const std::vector<pid_t>& hostPids) {
  // A group is busy until the kernel has let go of its last process.
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  for (auto left = cgroupsOf(hostPids); !left.empty() && std::chrono::steady_clock::now() < end;
       left = cgroupsOf(hostPids)) {
    for (const std::string& folder : left) {
      ::rmdir(folder.c_str());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

LeakCheck::LeakCheck(std::string folder, std::chrono::milliseconds grace)
    : folder_(std::move(folder)),
      grace_(grace),
      descriptors_(openDescriptors()),
      controlGroups_(tests::controlGroups()),
      threads_(threadsOfThen()) {
}

bool LeakCheck::within(const std::function<bool()>& gone) const {
  const auto end = std::chrono::steady_clock::now() + grace_;
  while (!gone()) {
    if (std::chrono::steady_clock::now() > end) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

std::vector<std::string> LeakCheck::look(const std::vector<pid_t>& hostPids) {
  std::vector<std::string> left;
  if (!within([]() { return !reapChildren(); })) {
    for (const pid_t pid : descendants(::getpid())) {
      left.push_back("process " + std::to_string(pid) + " (" + processName(pid) + ')');
      ::kill(pid, SIGKILL);
    }
  }
  std::set<std::string> extra;
  const auto none = [&](const std::function<std::set<std::string>()>& find) {
    return within([&]() {
      extra = find();
      return extra.empty();
    });
  };
  const auto tell = [&](const std::string& what) {
    for (const std::string& one : extra) {
      left.push_back(what + ' ' + one);
    }
  };
  if (!none([&]() {
        std::set<std::string> now = openDescriptors();
        for (const std::string& before : descriptors_) {
          now.erase(before);
        }
        return now;
      })) {
    tell("descriptor");
  }
  if (!none([&]() { return runtimeEntries(folder_ + "/run"); })) {
    tell("runtime entry");
  }
  if (!none([&]() { return socketsBelow(folder_); })) {
    tell("socket");
  }
  if (!none([&]() {
        std::set<std::string> now = cgroupsOf(hostPids);
        for (const std::string& before : controlGroups_) {
          now.erase(before);
        }
        return now;
      })) {
    tell("control group");
  }
  // Whatever a case is about, and whether or not it looks at how its VMs ended.
  for (const std::string& name : endedByTheirFilters(folder_ + "/state")) {
    left.push_back("the record of " + name + ", whose worker was ended by SIGSYS");
  }
  if (!within([&]() { return threadCount() <= threads_; })) {
    left.push_back(std::to_string(threadCount() - threads_) + " threads");
  }
  return left;
}

}  // namespace vmmhost::conformance
