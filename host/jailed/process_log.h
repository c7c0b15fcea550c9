// What a jailed process writes to its log, on its way into a log of ours: in lines, bounded in length and rate.
#pragma once

#include <kj/time.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "host/base/log.h"

namespace vmmhost::jailed {

// Lines may begin with a letter for their severity and a blank ("W memory is short"), as those of the SDK do. One
// thread.
class ProcessLog {
 public:
  static constexpr std::size_t kMaxLine = 4096;  // the rest of a line is lost
  static constexpr std::size_t kKeptLines = 20;
  static constexpr std::uint64_t kBytesPerSecond = 64 * 1024;  // of lines beyond it only their number is logged

  // `log` outlives it; `component` is who its records are said to be of.
  ProcessLog(Log& log, std::string component, kj::TimePoint now);

  void add(std::string_view bytes, kj::TimePoint now);
  void finish(kj::TimePoint now);  // what was begun is a line, too
  // Those that came last, oldest first, fit to be shown; those that were not logged as well.
  const std::deque<std::string>& last() const { return last_; }

 private:
  void line(std::string_view text, kj::TimePoint now);

  Log& log_;
  std::string component_;
  std::string partial_;
  std::deque<std::string> last_;
  std::uint64_t spent_ = 0;
  kj::TimePoint since_;
  std::uint64_t dropped_ = 0;
};

}  // namespace vmmhost::jailed
