// Apart from what a worker does with them (epolls_linux.cc): the supervisor needs this alone, and keeps the C library's
// epoll_create1(). Programs that call that and link this library get ours, which makes new ones for them as well.
#include <algorithm>
#include <charconv>
#include <system_error>

#include "vmmhost/epolls.h"

namespace vmmhost::epolls {
namespace {

constexpr std::string_view kPrefix = "epolls=";
constexpr int kMostDescriptor = 199;  // of those that a process starts with, see ipc/jail/spawn

}  // namespace

std::string argumentFor(const Inherited& epolls) {
  return std::string(kPrefix) + std::to_string(epolls.firstDescriptor) + '+' + std::to_string(epolls.count);
}

std::optional<Inherited> parseArgument(std::string_view argument) noexcept {
  if (!argument.starts_with(kPrefix)) {
    return std::nullopt;
  }
  argument.remove_prefix(kPrefix.size());
  const std::size_t plus = std::min(argument.find('+'), argument.size());
  const auto number = [](std::string_view text, auto& value) {
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && stop == text.data() + text.size();
  };
  Inherited found;
  if (plus == argument.size() || !number(argument.substr(0, plus), found.firstDescriptor) ||
      !number(argument.substr(plus + 1), found.count) || found.firstDescriptor < 3 || found.count == 0 ||
      found.count > kMaxEpolls || found.firstDescriptor + static_cast<int>(found.count) - 1 > kMostDescriptor) {
    return std::nullopt;
  }
  return found;
}

}  // namespace vmmhost::epolls
