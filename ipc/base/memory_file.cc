#include "vmmhost/memory_file.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "vmmhost/error.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

namespace vmmhost {

Fd makeMemoryFile(const char* name, std::uint64_t bytes) {
  int fd = ::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
  const bool isOldKernel = fd < 0 && errno == EINVAL;  // before 6.3
  if (isOldKernel) {
    fd = ::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  }
  if (fd < 0) {
    throw systemError(std::string("making memory for ") + name, errno);
  }
  Fd file(fd);
  if ((isOldKernel && ::fchmod(fd, 0600) != 0) || ::ftruncate(fd, static_cast<off_t>(bytes)) != 0 ||
      ::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    throw systemError(std::string("sizing and sealing ") + std::to_string(bytes) + " bytes of memory for " + name,
                      errno);
  }
  return file;
}

}  // namespace vmmhost
