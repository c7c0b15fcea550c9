#include "host/plugin/log_sink.h"

#include <algorithm>

#include "host/base/text.h"
#include "host/plugin/host_api.h"
#include "vmmhost/plugin.h"

namespace vmmhost::plugin {
namespace {

constexpr std::string_view kError = "E ";
constexpr std::string_view kWarning = "W ";
constexpr std::size_t kMaxLines = 32;

}  // namespace

std::string probeLogLine(int level, std::string_view line) {
  if (level < VMMHOST_LOG_WARNING) {
    return {};
  }
  return std::string(level == VMMHOST_LOG_WARNING ? kWarning : kError) + std::string(line) + '\n';
}

std::vector<LogLine> parseProbeLog(std::string_view text) {
  std::vector<LogLine> lines;
  while (!text.empty() && lines.size() < kMaxLines) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const bool isError = line.starts_with(kError);
    if (isError || line.starts_with(kWarning)) {
      line.remove_prefix(kError.size());
    }
    if (!line.empty()) {
      lines.push_back({isError ? VMMHOST_LOG_ERROR : VMMHOST_LOG_WARNING, printable(line, kMaxLineBytes)});
    }
  }
  return lines;
}

}  // namespace vmmhost::plugin
