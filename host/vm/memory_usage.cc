#include "host/vm/memory_usage.h"

#include <fcntl.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>
#include <utility>

namespace vmmhost::vm {
namespace {

constexpr std::uint64_t kLowMemory = std::uint64_t{3} << 30;
constexpr unsigned kMaxDepth = 4;

using GiveUp = std::function<bool()>;

// Calls `take` with each line; false: not to the end.
template <typename Take>
bool readLines(int folder, const char* path, const GiveUp& giveUp, Take take) {
  const Fd file(::openat(folder, path, O_RDONLY | O_CLOEXEC));
  if (!file) {
    return false;
  }
  std::string rest;
  char buffer[16 * 1024];
  ssize_t got;
  while ((got = ::read(file.get(), buffer, sizeof(buffer))) > 0) {
    if (giveUp && giveUp()) {
      return false;
    }
    rest.append(buffer, static_cast<std::size_t>(got));
    std::size_t start = 0;
    for (std::size_t end; (end = rest.find('\n', start)) != std::string::npos; start = end + 1) {
      take(std::string_view(rest).substr(start, end - start));
    }
    rest.erase(0, start);
  }
  if (!rest.empty()) {
    take(rest);
  }
  return got == 0;
}

std::uint64_t fieldKib(std::string_view line, std::string_view name) {
  if (!line.starts_with(name)) {
    return 0;
  }
  line.remove_prefix(name.size());
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  std::uint64_t value = 0;
  std::from_chars(line.data(), line.data() + line.size(), value);
  return value;
}

// The number of a process and its state (proc(5)); empty: it is gone.
std::pair<std::string, char> numberAndState(const Fd& process) {
  std::string stat;
  readLines(process.get(), "stat", {}, [&](std::string_view line) { stat = line; });
  const std::size_t nameEnd = stat.rfind(") ");
  if (nameEnd == std::string::npos) {
    return {};
  }
  return {stat.substr(0, stat.find(' ')), stat[nameEnd + 2]};
}

// False: given up, or the process ended meanwhile. Its children may.
bool addPrivateBytes(const Fd& process, std::uint64_t guestBytes, const GiveUp& giveUp, unsigned depth,
                     std::uint64_t& total) {
  const std::uint64_t lowKib = std::min(guestBytes, kLowMemory) / 1024;
  const std::uint64_t highKib = guestBytes / 1024 - lowKib;
  bool guest = false;
  const auto take = [&](std::string_view line) {
    if (line.starts_with("Size:")) {
      const std::uint64_t kib = fieldKib(line, "Size:");
      guest = kib >= lowKib || (highKib != 0 && kib == highKib);
    } else if (!guest) {
      total += 1024 * (fieldKib(line, "Private_Clean:") + fieldKib(line, "Private_Dirty:"));
    }
  };
  const bool isWhole = readLines(process.get(), "smaps", giveUp, take);
  const auto [number, state] = numberAndState(process);
  if (!isWhole || number.empty() || state == 'Z' || state == 'X') {
    return depth > 0 && !(giveUp && giveUp());
  }
  if (depth == kMaxDepth) {
    return true;
  }
  std::string children;
  readLines(process.get(), ("task/" + number + "/children").c_str(), giveUp,
            [&](std::string_view line) { children += line; });
  for (std::size_t at = 0; at < children.size();) {
    pid_t child = 0;
    const auto parsed = std::from_chars(children.data() + at, children.data() + children.size(), child);
    if (parsed.ec == std::errc() && child > 0) {
      const Fd folder = openProcess(child);
      if (folder && !addPrivateBytes(folder, guestBytes, giveUp, depth + 1, total)) {
        return false;
      }
    }
    at = std::min(children.find(' ', at), children.size() - 1) + 1;
  }
  return true;
}

}  // namespace

Fd openProcess(pid_t pid) {
  return Fd(::open(("/proc/" + std::to_string(pid)).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
}

std::uint64_t privateBytesOutsideGuest(const Fd& process, std::uint64_t guestMemoryBytes,
                                       const std::function<bool()>& giveUp) {
  std::uint64_t total = 0;
  return process && addPrivateBytes(process, guestMemoryBytes, giveUp, 0, total) ? total : 0;
}

}  // namespace vmmhost::vm
