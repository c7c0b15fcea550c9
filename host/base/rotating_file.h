// A file that is appended to and never grows beyond a bound: one older generation is kept beside it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "vmmhost/fd.h"

namespace vmmhost {

class RotatingFile {
 public:
  // `name` in `directory` (duplicated), mode 0600; NAME.1 is the older generation. Throws Error.
  RotatingFile(int directory, std::string name, std::uint64_t maxBytes);
  // Appends. A full disk or another failure loses these bytes only, and is told by failures().
  void append(std::string_view bytes) noexcept;
  std::uint64_t failures() const { return failures_; }

 private:
  void open();
  Fd directory_;
  std::string name_;
  std::uint64_t maxBytes_;
  std::uint64_t size_ = 0;
  std::uint64_t failures_ = 0;
  Fd file_;
};

}  // namespace vmmhost
