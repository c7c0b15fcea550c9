#include <charconv>

#include "ipc/jail/confinement/proc_reader.h"

namespace vmmhost::confinement {
namespace {

// Cuts the next piece off `rest`, up to `separator` or the end.
std::string_view next(std::string_view& rest, char separator) {
  const std::size_t end = rest.find(separator);
  const std::string_view piece = rest.substr(0, end);
  rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  return piece;
}

std::string_view nextWord(std::string_view& rest) {
  while (!rest.empty() && (rest.front() == ' ' || rest.front() == '\t')) {
    rest.remove_prefix(1);
  }
  return next(rest, rest.find('\t') < rest.find(' ') ? '\t' : ' ');
}

std::optional<std::uint64_t> number(std::string_view text, int base) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) {
    text.remove_prefix(1);
  }
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return value;
}

std::optional<std::array<std::uint64_t, 4>> fourIds(std::string_view text) {
  std::array<std::uint64_t, 4> ids{};
  for (std::uint64_t& id : ids) {
    const auto value = number(nextWord(text), 10);
    if (!value) {
      return std::nullopt;
    }
    id = *value;
  }
  return ids;
}

std::size_t countWords(std::string_view text) {
  std::size_t words = 0;
  while (!text.empty()) {
    words += nextWord(text).empty() ? 0 : 1;
  }
  return words;
}

// Blanks, tabs, newlines and backslashes stand as \040 and the like.
std::string unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned code = 0;
    if (text[i] == '\\' && i + 3 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 4, code, 8).ptr == text.data() + i + 4) {
      out.push_back(static_cast<char>(code));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

bool hasOption(std::string_view options, std::string_view wanted) {
  while (!options.empty()) {
    if (next(options, ',') == wanted) {
      return true;
    }
  }
  return false;
}

}  // namespace

ThreadStatus parseStatus(std::string_view text) {
  ThreadStatus status;
  while (!text.empty()) {
    std::string_view value = next(text, '\n');
    const std::string_view name = next(value, ':');
    if (name == "Uid") {
      status.uids = fourIds(value);
    } else if (name == "Gid") {
      status.gids = fourIds(value);
    } else if (name == "Groups") {
      status.groups = countWords(value);
    } else if (name == "State") {
      status.isZombie = nextWord(value) == "Z";
    } else if (name == "PPid") {
      status.parent = number(value, 10);
    } else if (name == "Seccomp") {
      status.seccomp = number(value, 10);
    } else if (name == "Seccomp_filters") {
      status.seccompFilters = number(value, 10);
    } else if (name == "NoNewPrivs") {
      status.noNewPrivileges = number(value, 10);
    }
    for (std::size_t i = 0; i < kCapabilitySets.size(); ++i) {
      if (name == kCapabilitySets[i]) {
        status.capabilities[i] = number(value, 16);
      }
    }
  }
  return status;
}

std::vector<int> parseNumbers(std::string_view text) {
  std::vector<int> numbers;
  while (!text.empty()) {
    const auto value = number(nextWord(text), 10);
    if (value && *value <= 0x7fffffff) {
      numbers.push_back(static_cast<int>(*value));
    }
  }
  return numbers;
}

// id parent major:minor root target options [optional fields] - type source super-options
std::vector<Mount> parseMountinfo(std::string_view text) {
  std::vector<Mount> mounts;
  while (!text.empty()) {
    std::string_view line = next(text, '\n');
    for (int skipped = 0; skipped < 4; ++skipped) {
      next(line, ' ');
    }
    Mount mount;
    mount.target = unescape(next(line, ' '));
    const std::string_view options = next(line, ' ');
    mount.readOnly = hasOption(options, "ro");
    mount.noSetuid = hasOption(options, "nosuid");
    mount.noDevices = hasOption(options, "nodev");
    mount.noExecution = hasOption(options, "noexec");
    while (!line.empty() && next(line, ' ') != "-") {
    }
    mount.type = unescape(next(line, ' '));
    if (!mount.target.empty()) {
      mounts.push_back(std::move(mount));
    }
  }
  return mounts;
}

}  // namespace vmmhost::confinement
