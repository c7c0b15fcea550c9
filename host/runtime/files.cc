#include "host/runtime/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <memory>

#include "host/base/text.h"
#include "vmmhost/error.h"

namespace vmmhost::runtime {

void checkOwnFolder(int folder, const std::string& shown) {
  struct stat status = {};
  if (::fstat(folder, &status) != 0) {
    throw systemError("looking at the folder " + shown, errno);
  }
  if (status.st_uid != ::geteuid()) {
    throw Error(ErrorCode::kConfinement,
                "the folder " + shown + " belongs to user id " + std::to_string(status.st_uid) +
                    ", not to the caller (" + std::to_string(::geteuid()) + ")",
                "remove it, or choose another place with VMMHOST_RUNTIME_DIR or VMMHOST_STATE_DIR");
  }
  if ((status.st_mode & 077) != 0) {
    throw Error(ErrorCode::kConfinement, "others have access to the folder " + shown, "chmod 700 " + shown);
  }
}

Fd openOwnFolder(int parent, const std::string& name, const std::string& shown) {
  Fd folder(::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!folder) {
    if (errno == ENOENT) {
      return {};
    }
    if (errno == ENOTDIR || errno == ELOOP) {
      throw Error(ErrorCode::kConfinement, shown + " is not a folder, or a symbolic link", "remove it");
    }
    throw systemError("opening the folder " + shown, errno);
  }
  checkOwnFolder(folder.get(), shown);
  return folder;
}

Fd makeOwnFolder(int parent, const std::string& name, const std::string& shown) {
  if (::mkdirat(parent, name.c_str(), 0700) != 0 && errno != EEXIST) {
    throw systemError("making the folder " + shown, errno);
  }
  return openOwnFolder(parent, name, shown);
}

std::optional<std::string> readSmallFile(int folder, const std::string& name, std::size_t limit) {
  const Fd file(::openat(folder, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  struct stat status = {};
  if (!file || ::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return std::nullopt;
  }
  std::string content;
  std::array<char, 8192> buffer;
  while (content.size() <= limit) {
    const ssize_t count = ::read(file.get(), buffer.data(), buffer.size());
    if (count == 0) {
      return content;
    }
    if (count > 0) {
      content.append(buffer.data(), static_cast<std::size_t>(count));
    } else if (errno != EINTR) {
      return std::nullopt;
    }
  }
  return std::nullopt;
}

void replaceFile(int folder, const std::string& name, std::string_view content, Durable durable) {
  const std::string temporary = '.' + name + ".new";
  const auto fail = [&](const char* what) {
    const int error = errno;
    ::unlinkat(folder, temporary.c_str(), 0);
    throw systemError(std::string(what) + ' ' + name, error);
  };
  ::unlinkat(folder, temporary.c_str(), 0);
  const Fd file(::openat(folder, temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) {
    fail("making");
  }
  while (!content.empty()) {
    const ssize_t count = ::write(file.get(), content.data(), content.size());
    if (count >= 0) {
      content.remove_prefix(static_cast<std::size_t>(count));
    } else if (errno != EINTR) {
      fail("writing");
    }
  }
  const bool sync = durable == Durable::kYes;
  if ((sync && ::fsync(file.get()) != 0) || ::renameat(folder, temporary.c_str(), folder, name.c_str()) != 0) {
    fail("writing");
  }
  if (sync) {
    ::fsync(folder);
  }
}

Fd lockRemovable(int folder, const std::string& name, int createFlags) {
  Fd file(::openat(folder, name.c_str(), O_RDWR | createFlags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600));
  if (!file) {
    if (errno == ENOENT || errno == EEXIST) {
      return {};
    }
    throw systemError("opening the lock " + name, errno);
  }
  struct stat open = {};
  struct stat named = {};
  // One that was removed meanwhile is nobody's lock.
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0 || ::fstat(file.get(), &open) != 0 ||
      ::fstatat(folder, name.c_str(), &named, AT_SYMLINK_NOFOLLOW) != 0 || open.st_dev != named.st_dev ||
      open.st_ino != named.st_ino) {
    return {};
  }
  return file;
}

std::vector<std::string> folderEntries(int folder, std::size_t limit) {
  std::vector<std::string> names;
  // A description of its own: the position of `folder` belongs to its owner.
  Fd copy(::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!copy) {
    return names;
  }
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(copy.get()), &::closedir);
  if (!stream) {
    return names;
  }
  copy.release();
  while (names.size() < limit) {
    const dirent* entry = ::readdir(stream.get());
    if (entry == nullptr) {
      break;
    }
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") {
      names.emplace_back(name);
    }
  }
  return names;
}

bool emptyFolder(int folder, const std::string& last, const std::string& kept, int depth) noexcept {
  try {
    std::vector<std::string> names = folderEntries(folder, SIZE_MAX);
    std::stable_partition(names.begin(), names.end(), [&](const std::string& name) { return name != last; });
    bool clean = true;
    for (const std::string& name : names) {
      if (name == kept && !kept.empty()) {
        continue;
      }
      if (name == last && !clean) {
        return false;
      }
      if (::unlinkat(folder, name.c_str(), 0) == 0 || errno == ENOENT) {
        continue;
      }
      const Fd inner(::openat(folder, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      clean = depth > 0 && inner && emptyFolder(inner.get(), {}, {}, depth - 1) &&
              ::unlinkat(folder, name.c_str(), AT_REMOVEDIR) == 0 && clean;
    }
    return clean;
  } catch (...) {
    return false;
  }
}

bool isPlainFileName(std::string_view name) noexcept {
  return !name.empty() && name.size() <= 64 && name[0] != '.' && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c == '.';
  });
}

}  // namespace vmmhost::runtime
