#include "host/runtime/record.h"

#include <charconv>

namespace vmmhost::runtime {
namespace {

constexpr std::size_t kMaxCgroups = 64;

template <typename T>
bool parseNumber(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

constexpr char kVmWord[] = "vm";
constexpr char kNetworkWord[] = "network";

const char* kindWord(Kind kind) {
  return kind == Kind::kVm ? kVmWord : kNetworkWord;
}

bool parseKind(std::string_view text, Kind& kind) {
  kind = text == kNetworkWord ? Kind::kNetwork : Kind::kVm;
  return text == kindWord(kind);
}

}  // namespace

std::string formatRecord(const Record& record) {
  std::string out;
  const auto line = [&out](std::string_view key, const std::string& value) {
    if (value.find_first_of(std::string_view("\n\0", 2)) != std::string::npos) {
      throw Error(ErrorCode::kInvalidArgument, "a record cannot hold a " + std::string(key) + " with a line break");
    }
    out += key;
    out += '=' + value + '\n';
  };
  line("kind", kindWord(record.kind));
  line("name", record.name);
  line("backend", record.backend);
  line("supervisorPid", std::to_string(record.supervisorPid));
  line("startedUnixMs", std::to_string(record.startedUnixMs));
  line("removeOnEnd", record.removeOnEnd ? "1" : "0");
  line("consoles", std::to_string(record.consoles));
  for (const std::string& cgroup : record.cgroups) {
    line("cgroup", cgroup);
  }
  return out;
}

std::optional<Record> parseRecord(std::string_view text) {
  Record record;
  if (text.size() > kMaxRecordBytes) {
    return std::nullopt;
  }
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::size_t equals = text.find('=');
    if (end == std::string_view::npos || equals > end) {
      return std::nullopt;
    }
    const std::string_view key = text.substr(0, equals);
    const std::string_view value = text.substr(equals + 1, end - equals - 1);
    text.remove_prefix(end + 1);
    bool good = true;
    if (key == "kind") {
      good = parseKind(value, record.kind);
    } else if (key == "name") {
      record.name = value;
    } else if (key == "backend") {
      record.backend = value;
    } else if (key == "supervisorPid") {
      good = parseNumber(value, record.supervisorPid);
    } else if (key == "startedUnixMs") {
      good = parseNumber(value, record.startedUnixMs);
    } else if (key == "removeOnEnd") {
      good = value == "0" || value == "1";
      record.removeOnEnd = value == "1";
    } else if (key == "consoles") {
      good = parseNumber(value, record.consoles);
    } else if (key == "cgroup") {
      good = record.cgroups.size() < kMaxCgroups;
      record.cgroups.emplace_back(value);
    }
    if (!good) {
      return std::nullopt;
    }
  }
  return record;
}

}  // namespace vmmhost::runtime
