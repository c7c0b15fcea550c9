// Control groups: v1 controllers each in a hierarchy of their own, or v2.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>

#include "ipc/jail/spawn/spawn.h"

namespace vmmhost::spawn {
namespace {

constexpr const char* kMountPoint = "/sys/fs/cgroup";
constexpr std::size_t kMaxFile = 64 * 1024;

std::string readWhole(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  if (!fd) {
    return text;
  }
  std::array<char, 4096> buffer;
  ssize_t got;
  while (text.size() < kMaxFile && (got = ::read(fd.get(), buffer.data(), buffer.size())) > 0) {
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
  return text;
}

bool writeWhole(const std::string& path, const std::string& text) {
  const Fd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  return fd && ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// This process's group in a v1 hierarchy, or in v2 for an empty controller: the third field of /proc/self/cgroup.
std::string ownGroup(std::string_view controller) {
  const std::string text = readWhole("/proc/self/cgroup");
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = std::min(text.find('\n', start), text.size());
    const std::string_view line = std::string_view(text).substr(start, end - start);
    start = end + 1;
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (second == std::string_view::npos) {
      continue;
    }
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    if (controllers == controller) {
      return std::string(line.substr(second + 1));
    }
  }
  return {};
}

bool contains(const std::string& words, std::string_view word) {
  for (std::size_t at = words.find(word); at != std::string::npos; at = words.find(word, at + 1)) {
    const bool begins = at == 0 || words[at - 1] == ' ';
    const std::size_t end = at + word.size();
    if (begins && (end == words.size() || words[end] == ' ' || words[end] == '\n')) {
      return true;
    }
  }
  return false;
}

bool isV2() {
  return ::access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
}

std::string join(const std::string& parent, std::string_view name) {
  return parent + (parent.ends_with('/') ? "" : "/") + std::string(name);
}

// The nearest folder around this process whose children get memory and pids controllers, and that is writable.
std::string v2Parent() {
  std::string folder = kMountPoint + ownGroup("");
  while (folder.size() >= std::string_view(kMountPoint).size()) {
    const std::string enabled = readWhole(join(folder, "cgroup.subtree_control"));
    if (contains(enabled, "memory") && contains(enabled, "pids") && ::access(folder.c_str(), W_OK) == 0) {
      return folder;
    }
    folder.erase(folder.find_last_of('/'));
  }
  return {};
}

}  // namespace

Cgroup Cgroup::make(std::string_view name, std::uint64_t memoryBytes, std::uint32_t maxProcesses,
                    const Announce& announce) {
  Cgroup group;
  const std::string leaf = "vmmhost-" + std::string(name);
  struct Wanted {
    std::string folder;
    std::vector<std::pair<const char*, std::string>> settings;
  };
  std::vector<Wanted> wanted;
  const std::string memory = std::to_string(memoryBytes);
  const std::string processes = std::to_string(maxProcesses);
  if (isV2()) {
    const std::string parent = v2Parent();
    if (parent.empty()) {
      group.why_ = "no writable control group with memory and pids controllers around this process";
    } else {
      wanted.push_back(
          {join(parent, leaf), {{"memory.max", memory}, {"memory.swap.max", "0"}, {"pids.max", processes}}});
    }
  } else {
    wanted.push_back(
        {join(std::string(kMountPoint) + "/memory" + ownGroup("memory"), leaf), {{"memory.limit_in_bytes", memory}}});
    wanted.push_back({join(std::string(kMountPoint) + "/pids" + ownGroup("pids"), leaf), {{"pids.max", processes}}});
  }
  if (announce) {
    std::vector<std::string> folders;
    for (const Wanted& one : wanted) {
      folders.push_back(one.folder);
    }
    announce(folders);
  }
  for (const Wanted& one : wanted) {
    if (::mkdir(one.folder.c_str(), 0755) != 0 && errno != EEXIST) {
      group.why_ = systemError(one.folder, errno).message();
      continue;
    }
    group.folders_.push_back(one.folder);
    for (const auto& [file, value] : one.settings) {
      // Swap accounting may be off; the limits that count are checked.
      if (!writeWhole(join(one.folder, file), value) && std::string_view(file) != "memory.swap.max") {
        group.why_ = systemError(join(one.folder, file), errno).message();
      }
    }
    if (isV2()) {
      group.v2_.reset(::open(one.folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    } else if (Fd tasks(::open(join(one.folder, "tasks").c_str(), O_WRONLY | O_CLOEXEC)); tasks) {
      group.tasks_.push_back(std::move(tasks));
    }
  }
  return group;
}

Cgroup::~Cgroup() {
  remove();
}

std::vector<int> Cgroup::tasksDescriptors() const {
  std::vector<int> descriptors;
  for (const Fd& fd : tasks_) {
    descriptors.push_back(fd.get());
  }
  return descriptors;
}

bool Cgroup::outOfMemory() const {
  for (const std::string& folder : folders_) {
    for (const char* file : {"memory.events", "memory.oom_control"}) {
      const std::string text = readWhole(join(folder, file));
      const std::size_t at = text.find("oom_kill ");
      if (at != std::string::npos && text[at + 9] != '0') {
        return true;
      }
    }
  }
  return false;
}

void Cgroup::remove() noexcept {
  tasks_.clear();
  v2_.reset();
  for (const std::string& folder : folders_) {
    ::rmdir(folder.c_str());
  }
  folders_.clear();
}

}  // namespace vmmhost::spawn
