// The host's log: spdlog behind a small interface, so that its headers stay in one file.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "host/base/rotating_file.h"

namespace vmmhost {

enum class Severity { kDebug, kInfo, kWarning, kError };

// One log of one VM. Records are single lines with time and severity; what a terminal would obey is escaped
// (printable()) and records are cut at 4 KiB. One thread.
class Log {
 public:
  // Writes to `file`, if there is one; to standard error as well if asked (VMMHOST_DEBUG).
  Log(std::unique_ptr<RotatingFile> file, bool toStandardError);
  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  // From now on to this file.
  void setFile(std::unique_ptr<RotatingFile> file);

  void write(Severity severity, std::string_view component, std::string_view message) noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vmmhost
