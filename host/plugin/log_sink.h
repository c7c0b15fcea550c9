// What plugins log, on its way to whoever keeps it.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace vmmhost::plugin {

// Takes one printable line with its level (VMMHOST_LOG_*). Empty: what would go there is dropped.
using LogSink = std::function<void(int level, std::string_view line)>;

struct LogLine {
  int level = 0;
  std::string text;
};

// What a probing program writes to its standard error: nothing for a level that is not worth the way.
std::string probeLogLine(int level, std::string_view line);
// What came out there: lines as above, and as warnings those that something else in that process wrote, such as the C
// library about its end. At most 32 of 1 KiB, printable.
std::vector<LogLine> parseProbeLog(std::string_view text);
inline constexpr std::size_t kMaxProbeLogBytes = 64 * 1024;  // what a pipe holds

}  // namespace vmmhost::plugin
