// Text of a guest on somebody's terminal.
#pragma once

#include <string>
#include <string_view>

namespace vmmhost::cli {

// Shows what a terminal would obey (see config::printable), but for ends of lines and tabs. Takes text in pieces: a
// character that is cut in two waits for its rest.
class TerminalFilter {
 public:
  std::string feed(std::string_view piece);
  std::string finish();  // what still waits

 private:
  std::string waiting_;
};

}  // namespace vmmhost::cli
