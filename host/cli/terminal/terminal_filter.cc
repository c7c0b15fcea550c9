#include "host/cli/terminal/terminal_filter.h"

#include <limits>

#include "host/base/text.h"

namespace vmmhost::cli {

namespace {

constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max() / 2;

// How many bytes at the end are the beginning of a character that is not complete.
std::size_t incompleteTail(std::string_view text) {
  for (std::size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xc0) == 0x80) {
      continue;
    }
    const std::size_t length = (byte & 0xe0) == 0xc0 ? 2 : (byte & 0xf0) == 0xe0 ? 3 : (byte & 0xf8) == 0xf0 ? 4 : 1;
    return length > back ? back : 0;
  }
  return 0;
}

}  // namespace

std::string TerminalFilter::feed(std::string_view piece) {
  std::string text = waiting_ + std::string(piece);
  const std::size_t tail = incompleteTail(text);
  waiting_ = text.substr(text.size() - tail);
  std::string_view rest = std::string_view(text).substr(0, text.size() - tail);
  std::string out;
  while (!rest.empty()) {
    const std::size_t end = rest.find_first_of("\n\t\r");
    out += printable(rest.substr(0, end), kNoLimit);
    if (end == std::string_view::npos) {
      break;
    }
    out += rest[end];
    rest.remove_prefix(end + 1);
  }
  return out;
}

std::string TerminalFilter::finish() {
  std::string out = printable(waiting_, kNoLimit);
  waiting_.clear();
  return out;
}

}  // namespace vmmhost::cli
