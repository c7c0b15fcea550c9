#include <fcntl.h>
#include <linux/limits.h>
#include <linux/nsfs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "ipc/jail/confinement/proc_reader.h"
#include "vmmhost/confinement.h"
#include "vmmhost/error.h"

namespace vmmhost::confinement {
namespace {

constexpr std::size_t kMaxNumbers = 65536;

// The layout of getdents64(2), which C libraries do not declare under one name.
struct EntryHeader {
  std::uint64_t inode;
  std::int64_t offset;
  std::uint16_t bytes;
  std::uint8_t type;
};
constexpr std::size_t kNameOffset = 19;

}  // namespace

std::string namespaceOf(int descriptor) {
  char target[64];
  const std::string link = "/proc/self/fd/" + std::to_string(descriptor);
  const ssize_t length = ::readlink(link.c_str(), target, sizeof target);
  // A file of nsfs, and no file of that name.
  if (length <= 0 || static_cast<std::size_t>(length) == sizeof target || target[0] == '/' ||
      ::ioctl(descriptor, NS_GET_NSTYPE) < 0) {
    return {};
  }
  return std::string(target, static_cast<std::size_t>(length));
}

ProcReader::ProcReader(pid_t pid) : name_("/proc/" + std::to_string(pid)) {
  folder_.reset(::open(name_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!folder_) {
    note("", errno);
  }
}

void ProcReader::note(const char* path, int errnoValue) {
  error_ = systemError(name_ + (*path == '\0' ? "" : "/") + path, errnoValue).message();
}

std::optional<std::string> ProcReader::link(const char* path) {
  char target[PATH_MAX];
  const ssize_t length = ::readlinkat(folder_.get(), path, target, sizeof target);
  if (length < 0) {
    note(path, errno);
    return std::nullopt;
  }
  return std::string(target, static_cast<std::size_t>(length));
}

std::optional<std::string> ProcReader::parentNamespace(const char* path) {
  const Fd own(::openat(folder_.get(), path, O_RDONLY | O_CLOEXEC));
  const Fd parent(own ? ::ioctl(own.get(), NS_GET_PARENT) : -1);
  std::string name = parent ? namespaceOf(parent.get()) : std::string();
  if (name.empty()) {
    note(path, errno);
    return std::nullopt;
  }
  return name;
}

std::optional<std::string> ProcReader::text(const char* path, std::size_t limit) {
  const Fd file(::openat(folder_.get(), path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file) {
    note(path, errno);
    return std::nullopt;
  }
  std::string content;
  char block[4096];
  while (content.size() <= limit) {
    const ssize_t got = ::read(file.get(), block, sizeof block);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      note(path, errno);
      return std::nullopt;
    }
    if (got == 0) {
      return content;
    }
    content.append(block, static_cast<std::size_t>(got));
  }
  note(path, EFBIG);
  return std::nullopt;
}

std::optional<std::vector<int>> ProcReader::numbers(const char* path) {
  const Fd folder(::openat(folder_.get(), path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  if (!folder) {
    note(path, errno);
    return std::nullopt;
  }
  std::vector<int> found;
  alignas(EntryHeader) char block[4096];
  while (true) {
    const long got = ::syscall(SYS_getdents64, folder.get(), block, sizeof block);
    if (got < 0) {
      note(path, errno);
      return std::nullopt;
    }
    if (got == 0) {
      break;
    }
    for (long at = 0; at < got;) {
      EntryHeader header{};
      std::memcpy(&header, block + at, kNameOffset);
      const char* name = block + at + kNameOffset;
      const char* end = name + std::strlen(name);
      int number = 0;
      if (std::from_chars(name, end, number).ptr == end) {
        found.push_back(number);
      }
      at += header.bytes;
    }
    if (found.size() > kMaxNumbers) {
      note(path, EFBIG);
      return std::nullopt;
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::optional<struct stat> ProcReader::status(const char* path) {
  struct stat result {};
  if (::fstatat(folder_.get(), path, &result, 0) != 0) {
    note(path, errno);
    return std::nullopt;
  }
  return result;
}

}  // namespace vmmhost::confinement
