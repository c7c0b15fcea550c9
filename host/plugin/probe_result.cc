#include "host/plugin/probe_result.h"

#include <algorithm>
#include <cstdint>

#include "host/base/text.h"
#include "host/plugin/host_api.h"

namespace vmmhost::plugin {
namespace {

constexpr std::uint64_t kMagic = 0x3230626f72706d76;  // "vmprob02", little endian

class Writer {
 public:
  void number(std::uint64_t value) {
    for (int shift = 0; shift < 64; shift += 8) {
      bytes.push_back(static_cast<char>(value >> shift & 0xff));
    }
  }
  void text(std::string_view value) {
    number(value.size());
    bytes += value;
  }
  void list(const std::vector<std::string>& values) {
    number(values.size());
    for (const std::string& value : values) {
      text(value);
    }
  }
  std::string bytes;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  std::uint64_t number(std::uint64_t max = UINT64_MAX) {
    if (rest_.size() < 8) {
      return fail();
    }
    std::uint64_t value = 0;
    for (int index = 7; index >= 0; --index) {
      value = value << 8 | static_cast<std::uint8_t>(rest_[static_cast<std::size_t>(index)]);
    }
    rest_.remove_prefix(8);
    return value <= max ? value : fail();
  }
  bool boolean() { return number(1) != 0; }
  std::string text(std::size_t max) {
    const std::uint64_t size = number(rest_.size());
    if (size > rest_.size()) {  // number() took its own bytes
      fail();
      return {};
    }
    std::string value = printable(rest_.substr(0, size), max);
    rest_.remove_prefix(size);
    return value;
  }
  std::vector<std::string> list(std::size_t maxCount, std::size_t max) {
    const std::uint64_t count = number(maxCount);
    std::vector<std::string> values;
    for (std::uint64_t index = 0; index < count && good_; ++index) {
      values.push_back(text(max));
    }
    return values;
  }
  bool finished() const { return good_ && rest_.empty(); }

 private:
  std::uint64_t fail() {
    good_ = false;
    rest_ = {};
    return 0;
  }
  std::string_view rest_;
  bool good_ = true;
};

}  // namespace

bool isConfigFieldName(std::string_view name) noexcept {
  if (name.size() > kMaxConfigFieldBytes) {
    return false;
  }
  bool begins = true;  // a name within the name
  for (const char c : name) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (begins ? !letter : !letter && c != '.' && !(c >= '0' && c <= '9')) {
      return false;
    }
    begins = c == '.';
  }
  return !begins;
}

std::string encodeProbeResult(const ProbeResult& result) {
  const BackendInfo& info = result.info;
  Writer writer;
  writer.number(kMagic);
  writer.text(info.name);
  writer.text(info.version);
  writer.text(info.description);
  writer.number(info.preference);
  writer.number(info.usable ? 1 : 0);
  writer.number(static_cast<std::uint64_t>(info.acceleration));
  writer.list(info.capabilities);
  writer.text(info.summary);
  writer.text(info.hint);
  writer.number(info.instructionsPerSecond);
  writer.number(info.error ? 1 : 0);
  if (info.error) {
    writer.number(static_cast<std::uint64_t>(info.error->code()));
    writer.text(info.error->message());
    writer.text(info.error->hint());
    writer.number(info.error->retryable() ? 1 : 0);
  }
  writer.list(result.watchedPaths);
  writer.list(result.configFields);
  return std::move(writer.bytes);
}

std::optional<ProbeResult> decodeProbeResult(std::string_view bytes) {
  if (bytes.size() > kMaxProbeBytes) {
    return std::nullopt;
  }
  Reader reader(bytes);
  if (reader.number() != kMagic) {
    return std::nullopt;
  }
  ProbeResult result;
  BackendInfo& info = result.info;
  info.name = reader.text(32);
  info.version = reader.text(128);
  info.description = reader.text(kMaxLineBytes);
  info.preference = static_cast<std::uint32_t>(reader.number(UINT32_MAX));
  info.usable = reader.boolean();
  info.acceleration = static_cast<Acceleration>(reader.number(VMMHOST_ACCELERATION_HARDWARE));
  info.capabilities = reader.list(kMaxCapabilities, 32);
  info.summary = reader.text(kMaxLineBytes);
  info.hint = reader.text(kMaxLineBytes);
  info.instructionsPerSecond = reader.number();
  if (reader.boolean()) {
    const auto code = static_cast<ErrorCode>(reader.number(static_cast<std::uint64_t>(ErrorCode::kInternal)));
    std::string message = reader.text(kMaxMessageBytes);
    std::string hint = reader.text(kMaxLineBytes);
    info.error.emplace(code, std::move(message), std::move(hint), reader.boolean());
    info.usable = false;
  }
  result.watchedPaths = reader.list(kMaxWatchedPaths, kMaxMessageBytes);
  for (const std::string& path : result.watchedPaths) {
    if (path.empty() || path[0] != '/') {
      return std::nullopt;
    }
  }
  result.configFields = reader.list(kMaxConfigFields, kMaxConfigFieldBytes);
  if (!std::all_of(result.configFields.begin(), result.configFields.end(), isConfigFieldName) ||
      !std::all_of(info.capabilities.begin(), info.capabilities.end(), isBackendName)) {
    return std::nullopt;
  }
  if (!reader.finished()) {
    return std::nullopt;
  }
  return result;
}

}  // namespace vmmhost::plugin
