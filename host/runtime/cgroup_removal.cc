#include "host/runtime/cgroup_removal.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <climits>
#include <csignal>
#include <optional>
#include <string_view>
#include <vector>

#include "vmmhost/fd.h"

namespace vmmhost::runtime {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kPatience{2};
constexpr std::string_view kRoot = "/sys/fs/cgroup/";

// A record may be damaged: only what is spelled like one of our cgroups.
bool isOurs(std::string_view path) {
  if (path.size() >= PATH_MAX || path.substr(0, kRoot.size()) != kRoot || path.find('\0') != std::string_view::npos) {
    return false;
  }
  bool ours = false;
  for (std::size_t begin = kRoot.size(); begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") {
      return false;
    }
    ours = ours || part.substr(0, 7) == "vmmhost";
    begin = end + 1;
  }
  return ours;
}

int millisecondsUntil(Clock::time_point deadline) {
  return static_cast<int>(
      std::max<std::int64_t>(0, std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count()));
}

std::optional<std::vector<pid_t>> members(int cgroup) {
  const Fd file(::openat(cgroup, "cgroup.procs", O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file) {
    return std::nullopt;
  }
  std::string text;
  std::array<char, 4096> buffer;
  ssize_t count;
  while ((count = ::read(file.get(), buffer.data(), buffer.size())) > 0 && text.size() < (1u << 20)) {
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
  if (count < 0) {
    return std::nullopt;
  }
  std::vector<pid_t> pids;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    pid_t pid = 0;
    std::from_chars(text.data() + begin, text.data() + end, pid);
    pids.push_back(pid);  // 0: a process that this PID namespace cannot see
    begin = end + 1;
  }
  return pids;
}

// Kills all members and waits for their end. False if some live on.
bool killMembers(int cgroup, Clock::time_point deadline) {
  if (const Fd kill(::openat(cgroup, "cgroup.kill", O_WRONLY | O_CLOEXEC | O_NOFOLLOW)); kill) {
    (void)!::write(kill.get(), "1", 1);
  }
  while (true) {
    const auto before = members(cgroup);
    if (!before) {
      return false;
    }
    if (before->empty()) {
      return true;
    }
    std::vector<std::pair<pid_t, Fd>> processes;
    for (const pid_t pid : *before) {
      if (Fd process(pid > 0 ? static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)) : -1); process) {
        processes.emplace_back(pid, std::move(process));
      }
    }
    // The number may have gone to another process before pidfd_open: only who is a member now is meant.
    const auto now = members(cgroup).value_or(std::vector<pid_t>());
    std::vector<pollfd> ends;
    for (const auto& [pid, process] : processes) {
      if (std::find(now.begin(), now.end(), pid) != now.end()) {
        ::syscall(SYS_pidfd_send_signal, process.get(), SIGKILL, nullptr, 0);
        ends.push_back({process.get(), POLLIN, 0});
      }
    }
    while (!ends.empty()) {
      const int left = millisecondsUntil(deadline);
      const int count = ::poll(ends.data(), ends.size(), left);
      if (count == 0 || (count < 0 && errno != EINTR)) {
        return false;
      }
      ends.erase(std::remove_if(ends.begin(), ends.end(), [](const pollfd& end) { return end.revents != 0; }),
                 ends.end());
    }
    if (Clock::now() >= deadline || processes.empty()) {
      return members(cgroup).value_or(std::vector<pid_t>{0}).empty();
    }
  }
}

CgroupRemoval tryRemove(const std::string& path) {
  if (::rmdir(path.c_str()) == 0 || errno == ENOENT) {
    return CgroupRemoval::kGone;
  }
  return errno == EBUSY ? CgroupRemoval::kBusy : CgroupRemoval::kRefused;
}

}  // namespace

CgroupRemoval removeCgroup(const std::string& path) noexcept {
  try {
    if (!isOurs(path)) {
      return CgroupRemoval::kRefused;
    }
    const Fd cgroup(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!cgroup) {
      return errno == ENOENT ? CgroupRemoval::kGone : CgroupRemoval::kRefused;
    }
    struct statfs system = {};
    if (::fstatfs(cgroup.get(), &system) != 0 ||
        (system.f_type != CGROUP_SUPER_MAGIC && system.f_type != CGROUP2_SUPER_MAGIC)) {
      return CgroupRemoval::kRefused;
    }
    const auto inside = members(cgroup.get());
    if (!inside || std::find(inside->begin(), inside->end(), ::getpid()) != inside->end()) {
      return CgroupRemoval::kRefused;
    }
    const Clock::time_point deadline = Clock::now() + kPatience;
    if (!inside->empty() && !killMembers(cgroup.get(), deadline)) {
      return CgroupRemoval::kBusy;
    }
    CgroupRemoval result = tryRemove(path);
    // In version 2 a member counts a moment longer than its process is listed; the file tells when that is over.
    const Fd events(::openat(cgroup.get(), "cgroup.events", O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    while (result == CgroupRemoval::kBusy && events) {
      std::array<char, 256> text;
      const ssize_t count = ::pread(events.get(), text.data(), text.size(), 0);
      const bool populated =
          count > 0 &&
          std::string_view(text.data(), static_cast<std::size_t>(count)).find("populated 1") != std::string_view::npos;
      pollfd change = {events.get(), POLLPRI, 0};
      if (populated && ::poll(&change, 1, millisecondsUntil(deadline)) == 0) {
        break;
      }
      result = tryRemove(path);
      if (!populated) {
        break;
      }
    }
    return result;
  } catch (...) {
    return CgroupRemoval::kBusy;
  }
}

}  // namespace vmmhost::runtime
