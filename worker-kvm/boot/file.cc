#include "worker-kvm/boot/file.h"

#include <unistd.h>

#include <cerrno>

#include "vmmhost/error.h"

namespace vmmhost::kvm::boot {

FileSource::Result FileSource::tryRead(std::uint64_t offset, memory::Bytes target) const noexcept {
  Result result;
  while (result.bytes < target.size()) {
    const std::uint64_t at = offset + result.bytes;
    if (at > static_cast<std::uint64_t>(INT64_MAX)) {
      break;  // no file goes there
    }
    const ssize_t count =
        ::pread(file_.get(), target.data() + result.bytes, target.size() - result.bytes, static_cast<off_t>(at));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count <= 0) {
      result.error = count < 0 ? errno : 0;
      break;
    }
    result.bytes += static_cast<std::size_t>(count);
  }
  return result;
}

std::size_t FileSource::read(std::uint64_t offset, memory::Bytes target) const {
  const Result result = tryRead(offset, target);
  if (result.error != 0) {
    throw systemError(name_ + ": reading at offset " + std::to_string(offset + result.bytes), result.error);
  }
  return result.bytes;
}

std::uint64_t FileSource::bytes() const {
  const off_t end = ::lseek(file_.get(), 0, SEEK_END);
  if (end < 0) {
    throw systemError(name_ + ": finding its size", errno);
  }
  return static_cast<std::uint64_t>(end);
}

}  // namespace vmmhost::kvm::boot
