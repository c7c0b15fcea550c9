#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "vmmhost/seccomp.h"

namespace vmmhost::seccomp {

int install(std::span<const sock_filter> program, bool allThreads) noexcept {
  if (program.empty() || program.size() > BPF_MAXINSNS) {
    return EINVAL;
  }
  const int savedErrno = errno;
  sock_fprog filter{};
  filter.len = static_cast<unsigned short>(program.size());
  filter.filter = const_cast<sock_filter*>(program.data());  // the kernel only reads it
  const long result =
      ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, allThreads ? SECCOMP_FILTER_FLAG_TSYNC : 0u, &filter);
  // With TSYNC a positive number is the thread that could not follow: no thread has the filter then.
  const int error = result == 0 ? 0 : (result > 0 ? ESRCH : errno);
  errno = savedErrno;
  return error;
}

}  // namespace vmmhost::seccomp
