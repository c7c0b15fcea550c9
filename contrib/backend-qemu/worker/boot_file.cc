#include "worker/boot_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "vmmhost/error.h"

namespace qemubackend {

using vmmhost::Error;
using vmmhost::ErrorCode;
using vmmhost::Fd;

namespace {

// Kernels and initial RAM disks; what is larger is a mistake, and would be held in memory twice.
constexpr std::int64_t kMaxBootFileBytes = std::int64_t{1} << 30;

Fd copyToMemory(int descriptor, std::int64_t size, const std::string& what) {
  Fd copy(::memfd_create("boot", MFD_CLOEXEC));
  if (!copy) {
    throw vmmhost::systemError(what + ": memory for a copy", errno);
  }
  std::vector<std::byte> block(std::size_t{1} << 20);
  for (std::int64_t offset = 0; offset < size;) {
    const std::size_t count = readFrom(descriptor, block, static_cast<std::uint64_t>(offset), what);
    if (count == 0) {
      break;
    }
    for (std::size_t written = 0; written < count;) {
      const ssize_t step = ::write(copy.get(), block.data() + written, count - written);
      if (step < 0 && errno != EINTR) {
        throw vmmhost::systemError(what + ": copying into memory", errno);
      }
      written += step > 0 ? static_cast<std::size_t>(step) : 0;
    }
    offset += static_cast<std::int64_t>(count);
  }
  return copy;
}

}  // namespace

std::size_t readFrom(int descriptor, std::span<std::byte> into, std::uint64_t offset, const std::string& what) {
  std::size_t done = 0;
  while (done < into.size() && offset + done <= static_cast<std::uint64_t>(INT64_MAX)) {
    const ssize_t count =
        ::pread(descriptor, into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno != EINTR) {
      throw vmmhost::systemError(what, errno);
    }
    if (count == 0) {
      break;
    }
    done += count > 0 ? static_cast<std::size_t>(count) : 0;
  }
  return done;
}

std::uint64_t fileSize(int descriptor, const std::string& what) {
  struct stat status = {};
  if (::fstat(descriptor, &status) != 0) {
    throw vmmhost::systemError(what, errno);
  }
  return static_cast<std::uint64_t>(status.st_size);
}

std::vector<std::byte> readBeginning(int descriptor, std::size_t size, const std::string& what) {
  std::vector<std::byte> data(size);
  data.resize(readFrom(descriptor, data, 0, what));
  return data;
}

Fd reopenable(Fd file, const std::string& what) {
  struct stat status = {};
  if (::fstat(file.get(), &status) != 0) {
    throw vmmhost::systemError(what, errno);
  }
  if (!S_ISREG(status.st_mode)) {
    throw Error(ErrorCode::kInvalidArgument, what + ": not a regular file");
  }
  if (status.st_size > kMaxBootFileBytes) {
    throw Error(ErrorCode::kInvalidArgument, what + ": has " + std::to_string(status.st_size) +
                                                 " bytes; expected at most " + std::to_string(kMaxBootFileBytes));
  }
  const std::string path = "/proc/self/fd/" + std::to_string(file.get());
  if (const Fd again(::open(path.c_str(), O_RDONLY | O_CLOEXEC)); again) {
    return file;
  }
  return copyToMemory(file.get(), status.st_size, what);
}

}  // namespace qemubackend
