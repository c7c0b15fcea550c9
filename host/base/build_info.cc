#include "host/base/build_info.h"

#include <algorithm>

namespace vmmhost {
namespace {

constexpr std::string_view kDigits = "0123456789";

struct Version {
  std::string_view program;
  std::string_view numbers;  // "0.1.0"; empty: none
};

Version parse(std::string_view build) {
  const std::size_t space = std::min(build.find(' '), build.size());
  std::string_view rest = build.substr(space);
  rest.remove_prefix(rest.empty() ? 0 : 1);
  if (rest.empty() || kDigits.find(rest.front()) == std::string_view::npos) {
    return {build.substr(0, space), {}};
  }
  return {build.substr(0, space), rest.substr(0, rest.find_first_not_of("0123456789."))};
}

// Takes the first number away, leading zeroes left out: of any length, it stays text.
std::string_view takeNumber(std::string_view& numbers) {
  const std::size_t dot = numbers.find('.');
  std::string_view number = numbers.substr(0, dot);
  numbers = dot == std::string_view::npos ? std::string_view() : numbers.substr(dot + 1);
  number.remove_prefix(std::min(number.find_first_not_of('0'), number.size()));
  return number;
}

bool isLower(std::string_view one, std::string_view other) {
  while (!one.empty() || !other.empty()) {
    const std::string_view left = takeNumber(one);
    const std::string_view right = takeNumber(other);
    if (left != right) {
      return left.size() != right.size() ? left.size() < right.size() : left < right;
    }
  }
  return false;
}

}  // namespace

BuildAge compareBuilds(std::string_view theirs, std::string_view ours) noexcept {
  if (theirs == ours) {
    return BuildAge::kSame;
  }
  if (theirs.empty()) {
    return BuildAge::kOlder;
  }
  const Version their = parse(theirs);
  const Version our = parse(ours);
  const bool comparable = their.program == our.program && !their.numbers.empty() && !our.numbers.empty();
  return comparable && isLower(their.numbers, our.numbers) ? BuildAge::kOlder : BuildAge::kOther;
}

}  // namespace vmmhost
