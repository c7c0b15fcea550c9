#include "vmmhost/fd.h"

#include <fcntl.h>

#include <cerrno>

#include "vmmhost/error.h"

namespace vmmhost {

Fd Fd::duplicate() const {
  const int copy = ::fcntl(fd_, F_DUPFD_CLOEXEC, 3);
  if (copy < 0) {
    throw systemError("duplicating a descriptor", errno);
  }
  return Fd(copy);
}

}  // namespace vmmhost
