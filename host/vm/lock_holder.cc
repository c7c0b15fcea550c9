#include "host/vm/lock_holder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <optional>

#include "host/base/text.h"

namespace vmmhost::vm {
namespace {

constexpr std::size_t kMaxTextBytes = std::size_t{256} << 10;
constexpr std::size_t kMaxNamed = 4;
constexpr std::size_t kMaxNameBytes = 32;

std::string readText(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  std::array<char, 4096> block;
  while (file && text.size() < kMaxTextBytes) {
    const ssize_t got = ::read(file.get(), block.data(), block.size());
    if (got <= 0 && !(got < 0 && errno == EINTR)) {
      break;
    }
    text.append(block.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  }
  return text;
}

template <typename Take>
void eachLine(std::string_view text, Take take) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    take(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

// The next word of a line, taken off it.
std::string_view nextWord(std::string_view& line, char separator = ' ') {
  line.remove_prefix(std::min(line.find_first_not_of(separator), line.size()));
  const std::string_view word = line.substr(0, line.find(separator));
  line.remove_prefix(word.size());
  return word;
}

template <typename Number>
std::optional<Number> number(std::string_view text, int base = 10) {
  Number value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

std::optional<dev_t> deviceOf(std::string_view text, int base) {
  const auto major = number<unsigned>(nextWord(text, ':'), base);
  const auto minor = number<unsigned>(nextWord(text, ':'), base);
  return major && minor ? std::optional(makedev(*major, *minor)) : std::nullopt;
}

// That of the mount, which is what locks are listed with: some file systems show another one for each of their parts.
std::optional<dev_t> deviceOfMount(const Fd& file) {
  struct statx info = {};
  if (::statx(file.get(), "", AT_EMPTY_PATH, STATX_MNT_ID, &info) != 0 || (info.stx_mask & STATX_MNT_ID) == 0) {
    return std::nullopt;
  }
  std::optional<dev_t> device;
  eachLine(readText("/proc/self/mountinfo"), [&](std::string_view line) {
    const auto id = number<std::uint64_t>(nextWord(line));
    nextWord(line);  // of the mount that it lies on
    if (id && *id == info.stx_mnt_id) {
      device = deviceOf(nextWord(line), 10);
    }
  });
  return device;
}

}  // namespace

std::vector<HeldLock> parseHeldLocks(std::string_view locks) {
  std::vector<HeldLock> held;
  eachLine(locks, [&](std::string_view line) {
    nextWord(line);  // its number in the list
    if (nextWord(line) != "FLOCK") {
      return;
    }
    nextWord(line);  // ADVISORY
    nextWord(line);  // READ or WRITE
    const auto pid = number<pid_t>(nextWord(line));
    const std::string_view place = nextWord(line);
    const std::size_t colon = place.rfind(':');
    if (!pid || *pid <= 0 || colon == std::string_view::npos) {
      return;
    }
    const auto device = deviceOf(place.substr(0, colon), 16);
    const auto inode = number<ino_t>(place.substr(colon + 1));
    if (device && inode) {
      held.push_back({*pid, *device, *inode});
    }
  });
  return held;
}

std::string lockHolders(const Fd& file) {
  struct stat info = {};
  if (::fstat(file.get(), &info) != 0) {
    return {};
  }
  const dev_t mount = deviceOfMount(file).value_or(info.st_dev);
  std::vector<pid_t> pids;
  for (const HeldLock& lock : parseHeldLocks(readText("/proc/locks"))) {
    const bool isOurs = lock.inode == info.st_ino && (lock.device == info.st_dev || lock.device == mount);
    if (isOurs && std::find(pids.begin(), pids.end(), lock.pid) == pids.end()) {
      pids.push_back(lock.pid);
    }
  }
  std::string text = pids.empty() ? "" : pids.size() == 1 ? "process " : "processes ";
  for (std::size_t index = 0; index < std::min(pids.size(), kMaxNamed); ++index) {
    std::string name = readText("/proc/" + std::to_string(pids[index]) + "/comm");
    name.resize(std::min(name.find('\n'), name.size()));
    text += (index == 0 ? "" : ", ") + std::to_string(pids[index]);
    text += name.empty() ? "" : " (" + printable(name, kMaxNameBytes) + ")";
  }
  return pids.size() <= kMaxNamed ? text : text + " and " + std::to_string(pids.size() - kMaxNamed) + " more";
}

}  // namespace vmmhost::vm
