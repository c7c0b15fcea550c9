// What the probing program answers, as bytes in a pipe or in a cache file.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host/plugin/log_sink.h"
#include "host/plugin/registry.h"

namespace vmmhost::plugin {

struct ProbeResult {
  BackendInfo info;                       // the path is not carried
  std::vector<std::string> watchedPaths;  // absolute files that the answer depends on
  std::vector<std::string>
      configFields;           // newer than the plugin's version of the interface, and looked at all the same
  bool answered = true;       // not carried; false: it crashed, hung or babbled, and info.error says so
  std::vector<LogLine> said;  // not carried
};

inline constexpr std::size_t kMaxCapabilities = 64;
inline constexpr std::size_t kMaxWatchedPaths = 16;
inline constexpr std::size_t kMaxConfigFields = 256;
inline constexpr std::size_t kMaxConfigFieldBytes = 128;
inline constexpr std::size_t kMaxProbeBytes = 192 * 1024;  // more than any result within the limits takes

// Names of members, separated by dots: "nics.attachment.network".
bool isConfigFieldName(std::string_view name) noexcept;

std::string encodeProbeResult(const ProbeResult& result);

// Nothing for bytes that are no complete result, or one beyond the limits. Text comes out printable and bounded, so
// that what was decoded is the same when it is encoded and decoded again.
std::optional<ProbeResult> decodeProbeResult(std::string_view bytes);

}  // namespace vmmhost::plugin
