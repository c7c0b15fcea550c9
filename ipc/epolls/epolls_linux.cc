#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstddef>

#include "vmmhost/epolls.h"
#ifdef VMMHOST_SANITIZED
#include <dlfcn.h>
#endif

namespace vmmhost::epolls {
namespace {

constexpr std::string_view kPrefix = "epolls=";
constexpr int kMostDescriptor = 199;  // of those that a process starts with, see ipc/spawn

// The process has one epoll_create1(), and so one of these.
std::atomic<int> next{-1};  // -1: none are inherited
int end = 0;

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

bool takeInherited(std::span<char* const> arguments) {
  // Behind what the plan has put there itself.
  for (std::size_t back = 1; back <= 2 && back < arguments.size(); ++back) {
    if (const auto found = parseArgument(arguments[arguments.size() - back])) {
      end = found->firstDescriptor + static_cast<int>(found->count);
      for (int descriptor = found->firstDescriptor; descriptor < end; ++descriptor) {
        ::fcntl(descriptor, F_SETFD, FD_CLOEXEC);
      }
      next = found->firstDescriptor;
      return true;
    }
  }
  return false;
}

}  // namespace vmmhost::epolls

// In the place of the C library's, for everything that is linked into the program.
extern "C" __attribute__((visibility("default"))) int epoll_create1(int flags) noexcept {
  using namespace vmmhost::epolls;
  if (next < 0) {
#ifdef VMMHOST_SANITIZED
    // ThreadSanitizer's own, which has to see it.
    static const auto other = reinterpret_cast<int (*)(int)>(::dlsym(RTLD_NEXT, "epoll_create1"));
    return other(flags);
#else
    return static_cast<int>(::syscall(SYS_epoll_create1, flags));
#endif
  }
  const int mine = next.fetch_add(1);
  if (mine >= end) {
    next = end;  // however often it is asked
    errno = EMFILE;
    return -1;
  }
  return mine;
}
