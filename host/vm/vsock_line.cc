#include "host/vm/vsock_line.h"

#include <charconv>

namespace vmmhost::vm {
namespace {

constexpr std::string_view kWord = "CONNECT";

bool isBlank(char c) {
  return c == ' ' || c == '\t';
}

bool beginsWithWord(std::string_view text) {
  if (text.size() < kWord.size()) {
    return false;
  }
  for (std::size_t i = 0; i < kWord.size(); ++i) {
    const char c = text[i];
    if (c != kWord[i] && c != kWord[i] - 'A' + 'a') {
      return false;
    }
  }
  return true;
}

}  // namespace

ConnectLine parseConnectLine(std::string_view received) noexcept {
  const std::size_t end = received.substr(0, kMaxConnectLine).find('\n');
  if (end == std::string_view::npos) {
    return {received.size() < kMaxConnectLine ? ConnectLine::State::kUnfinished : ConnectLine::State::kWrong, 0, 0};
  }
  std::string_view line = received.substr(0, end);
  if (!line.empty() && line.back() == '\r') {
    line.remove_suffix(1);
  }
  while (!line.empty() && isBlank(line.back())) {
    line.remove_suffix(1);
  }
  constexpr ConnectLine kNone{ConnectLine::State::kWrong, 0, 0};
  if (!beginsWithWord(line)) {
    return kNone;
  }
  line.remove_prefix(kWord.size());
  if (line.empty() || !isBlank(line.front())) {
    return kNone;
  }
  while (!line.empty() && isBlank(line.front())) {
    line.remove_prefix(1);
  }
  ConnectLine found{ConnectLine::State::kPort, 0, end + 1};
  const auto [stop, error] = std::from_chars(line.data(), line.data() + line.size(), found.port);
  return error == std::errc() && stop == line.data() + line.size() ? found : kNone;
}

}  // namespace vmmhost::vm
