#include "host/jailed/process_log.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "host/base/text.h"

namespace vmmhost::jailed {

ProcessLog::ProcessLog(Log& log, std::string component, kj::TimePoint now)
    : log_(log), component_(std::move(component)), since_(now) {
}

void ProcessLog::add(std::string_view bytes, kj::TimePoint now) {
  while (!bytes.empty()) {
    const std::size_t end = bytes.find('\n');
    partial_ += bytes.substr(0, std::min(end, kMaxLine - std::min(kMaxLine, partial_.size())));
    if (end == std::string_view::npos) {
      break;
    }
    line(std::exchange(partial_, {}), now);
    bytes.remove_prefix(end + 1);
  }
}

void ProcessLog::finish(kj::TimePoint now) {
  if (!partial_.empty()) {
    line(std::exchange(partial_, {}), now);
  }
}

void ProcessLog::line(std::string_view text, kj::TimePoint now) {
  Severity severity = Severity::kInfo;
  if (text.size() >= 2 && text[1] == ' ') {
    switch (text[0]) {
      case 'D':
        severity = Severity::kDebug;
        break;
      case 'W':
        severity = Severity::kWarning;
        break;
      case 'E':
        severity = Severity::kError;
        break;
      default:
        break;
    }
    if (std::strchr("DIWE", text[0]) != nullptr) {
      text.remove_prefix(2);
    }
  }
  last_.push_back(printable(text, kMaxLine));
  if (last_.size() > kKeptLines) {
    last_.pop_front();
  }
  if (now - since_ >= 1 * kj::SECONDS) {
    since_ = now;
    spent_ = 0;
    if (dropped_ > 0) {
      log_.write(Severity::kWarning, component_, std::to_string(std::exchange(dropped_, 0)) + " log lines dropped");
    }
  }
  spent_ += text.size() + 1;
  if (spent_ > kBytesPerSecond) {
    ++dropped_;
    return;
  }
  log_.write(severity, component_, text);
}

}  // namespace vmmhost::jailed
