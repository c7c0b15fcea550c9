#include <fcntl.h>
#include <sys/resource.h>

#include "vmmhost/programs.h"

namespace vmmhost::programs {

// The executable is at the limit of descriptors (stub.h), the programs behind it.
int descriptorOf(std::size_t index) noexcept {
  rlimit limit = {};
  if (index >= kMaxPrograms || ::getrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return -1;
  }
  const int descriptor = static_cast<int>(limit.rlim_cur) + 1 + static_cast<int>(index);
  return ::fcntl(descriptor, F_SETFD, FD_CLOEXEC) == 0 ? descriptor : -1;
}

}  // namespace vmmhost::programs
