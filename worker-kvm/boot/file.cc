#include "worker-kvm/boot/file.h"

#include <unistd.h>

#include <cerrno>

#include "vmmhost/error.h"

namespace vmmhost::kvm::boot {

std::size_t FileSource::read(std::uint64_t offset, memory::Bytes target) const {
  std::size_t done = 0;
  while (done < target.size()) {
    if (offset + done > static_cast<std::uint64_t>(INT64_MAX)) {
      break;  // no file goes there
    }
    const ssize_t count =
        ::pread(file_.get(), target.data() + done, target.size() - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      throw systemError(name_ + ": reading at offset " + std::to_string(offset + done), errno);
    }
    if (count == 0) {
      break;
    }
    done += static_cast<std::size_t>(count);
  }
  return done;
}

std::uint64_t FileSource::bytes() const {
  const off_t end = ::lseek(file_.get(), 0, SEEK_END);
  if (end < 0) {
    throw systemError(name_ + ": finding its size", errno);
  }
  return static_cast<std::uint64_t>(end);
}

}  // namespace vmmhost::kvm::boot
