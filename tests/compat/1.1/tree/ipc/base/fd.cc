#include "vmmhost/fd.h"

#include <fcntl.h>

#include <cerrno>

#include "vmmhost/error.h"

namespace vmmhost {

Fd duplicate(int fd) {
  const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (copy < 0) {
    throw systemError("duplicating a descriptor", errno);
  }
  return Fd(copy);
}

}  // namespace vmmhost
