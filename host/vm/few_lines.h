// Lines of a log that a guest or a worker makes come as often as it likes.
#pragma once

#include <kj/time.h>

#include <optional>
#include <string>
#include <string_view>

#include "host/base/log.h"

namespace vmmhost::vm {

// Of one kind: the first of each second are written, the others counted, so that the log keeps room for what else there
// is to say. The log outlives it.
class FewLines {
 public:
  static constexpr unsigned kInASecond = 8;

  FewLines(Log& log, Severity severity, const char* component)
      : log_(log), severity_(severity), component_(component) {}

  void write(kj::TimePoint now, std::string_view text) {
    if (!since_ || now - *since_ >= 1 * kj::SECONDS) {
      tellOthers();
      since_ = now;
    }
    if (++count_ <= kInASecond) {
      log_.write(severity_, component_, text);
    }
  }
  // How many were counted since; when no more will come.
  void tellOthers() {
    if (count_ > kInASecond) {
      log_.write(severity_, component_, "and so " + std::to_string(count_ - kInASecond) + " times more");
    }
    count_ = 0;
  }

 private:
  Log& log_;
  Severity severity_;
  const char* component_;
  std::optional<kj::TimePoint> since_;
  unsigned count_ = 0;
};

}  // namespace vmmhost::vm
