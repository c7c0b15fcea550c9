#include <charconv>
#include <limits>
#include <string>

#include "host/base/text.h"
#include "host/config/json.h"
#include "vmmhost/error.h"

namespace vmmhost::config {

namespace {

// The power of two that a suffix stands for; -1 for what is no suffix.
int shiftOf(std::string_view suffix) {
  if (suffix.empty()) {
    return 0;
  }
  int shift = 0;
  switch (suffix[0]) {
    case 'K':
    case 'k':
      shift = 10;
      break;
    case 'M':
    case 'm':
      shift = 20;
      break;
    case 'G':
    case 'g':
      shift = 30;
      break;
    case 'T':
    case 't':
      shift = 40;
      break;
    default:
      return -1;
  }
  suffix.remove_prefix(1);
  return suffix.empty() || suffix == "B" || suffix == "iB" ? shift : -1;
}

}  // namespace

std::uint64_t parseByteSize(std::string_view what, std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
  const int shift = shiftOf(text.substr(static_cast<std::size_t>(end - text.data())));
  if (code == std::errc::result_out_of_range ||
      (code == std::errc() && shift > 0 && number > std::numeric_limits<std::uint64_t>::max() >> shift)) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string(what) + ": the size " + inQuotes(text) + " does not fit 64 bits");
  }
  if (code != std::errc() || shift < 0) {
    throw Error(ErrorCode::kInvalidArgument, std::string(what) + ": expected a size, found " + inQuotes(text),
                "write a number of bytes, or a whole number with K, M, G or T (powers of 1024), such as 512M or 2GiB");
  }
  return number << shift;
}

}  // namespace vmmhost::config
