#include "host/vm/memory_usage.h"

#include <fcntl.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <string>
#include <string_view>

#include "vmmhost/fd.h"

namespace vmmhost::vm {
namespace {

constexpr std::size_t kMaxText = std::size_t{4} << 20;
constexpr std::uint64_t kLowMemory = std::uint64_t{3} << 30;
constexpr unsigned kMaxDepth = 4;

std::string readAll(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  if (!fd) {
    return text;
  }
  char buffer[16 * 1024];
  ssize_t got;
  while (text.size() < kMaxText && (got = ::read(fd.get(), buffer, sizeof(buffer))) > 0) {
    text.append(buffer, static_cast<std::size_t>(got));
  }
  return text;
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

std::uint64_t privateBytes(pid_t pid, std::uint64_t guestBytes, unsigned depth) {
  const std::string base = "/proc/" + std::to_string(pid);
  const std::string text = readAll(base + "/smaps");
  const std::uint64_t lowKib = std::min(guestBytes, kLowMemory) / 1024;
  const std::uint64_t highKib = guestBytes / 1024 - lowKib;
  std::uint64_t total = 0;
  bool guest = false;
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = std::min(text.find('\n', start), text.size());
    const std::string_view line = std::string_view(text).substr(start, end - start);
    start = end + 1;
    if (line.starts_with("Size:")) {
      const std::uint64_t kib = fieldKib(line, "Size:");
      guest = kib >= lowKib || (highKib != 0 && kib == highKib);
    } else if (!guest) {
      total += fieldKib(line, "Private_Clean:") + fieldKib(line, "Private_Dirty:");
    }
  }
  total *= 1024;
  if (depth < kMaxDepth) {
    const std::string children = readAll(base + "/task/" + std::to_string(pid) + "/children");
    for (std::size_t at = 0; at < children.size();) {
      pid_t child = 0;
      const auto parsed = std::from_chars(children.data() + at, children.data() + children.size(), child);
      if (parsed.ec == std::errc() && child > 0) {
        total += privateBytes(child, guestBytes, depth + 1);
      }
      at = std::min(children.find(' ', at), children.size() - 1) + 1;
    }
  }
  return total;
}

}  // namespace

std::uint64_t privateBytesOutsideGuest(pid_t pid, std::uint64_t guestMemoryBytes) {
  return privateBytes(pid, guestMemoryBytes, 0);
}

}  // namespace vmmhost::vm
