#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>

#include "vmmhost/epolls.h"
#ifdef VMMHOST_SANITIZED
#include <dlfcn.h>
#endif

namespace vmmhost::epolls {
namespace {

// The process has one epoll_create1(), and so one of these.
std::atomic<int> next{-1};  // -1: none are inherited
int end = 0;

}  // namespace

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
