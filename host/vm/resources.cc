#include "host/vm/resources.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "vmmhost/error.h"

namespace vmmhost::vm {
namespace {

const char* kindOf(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR:
      return "a folder";
    case S_IFIFO:
      return "a FIFO";
    case S_IFSOCK:
      return "a socket";
    case S_IFCHR:
      return "a character device";
    case S_IFBLK:
      return "a block device";
    default:
      return "not a regular file";
  }
}

class Opener {
 public:
  explicit Opener(std::string workingDirectory) : workingDirectory_(std::move(workingDirectory)) {}

  void file(const std::string& field, schema::FileRef::Builder ref) {
    const std::string path = ref.getPath().cStr();
    Fd fd = openFile(field, path, O_RDONLY);
    const struct stat info = look(fd);
    if (!S_ISREG(info.st_mode)) {
      throw Error(ErrorCode::kInvalidArgument, field + ": " + path + " is " + kindOf(info.st_mode),
                  "name a regular file");
    }
    if (info.st_size == 0) {
      throw Error(ErrorCode::kInvalidArgument, field + ": " + path + " is empty");
    }
    keep(ref, std::move(fd));
  }

  void disk(const std::string& field, schema::Disk::Builder disk) {
    const std::string path = disk.getFile().getPath().cStr();
    const bool readOnly = disk.getReadOnly();
    Fd fd = openFile(field, path, readOnly ? O_RDONLY : O_RDWR);
    const struct stat info = look(fd);
    if (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode)) {
      throw Error(ErrorCode::kInvalidArgument, field + ": " + path + " is " + kindOf(info.st_mode),
                  "name a regular file or a block device");
    }
    // Through the descriptor, so that the file locked is the file opened.
    Fd lock(::open(("/proc/self/fd/" + std::to_string(fd.get())).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!lock) {
      throw systemError(field + ": " + path, errno);
    }
    if (::flock(lock.get(), (readOnly ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0) {
      throw Error(ErrorCode::kFailedPrecondition, field + ": " + path + " is in use by another VM",
                  "stop that VM, or let all of its users have it read-only", true);
    }
    opened_.locks.push_back(std::move(lock));
    if (!readOnly) {
      opened_.largestWritableFile =
          std::max<std::uint64_t>(opened_.largestWritableFile, static_cast<std::uint64_t>(info.st_size));
    }
    keep(disk.getFile(), std::move(fd));
  }

  OpenedResources take() { return std::move(opened_); }

 private:
  Fd openFile(const std::string& field, const std::string& path, int flags) {
    if (!directory_ && !path.starts_with('/')) {
      directory_.reset(::open(workingDirectory_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
      if (!directory_) {
        throw systemError(field + ": working directory " + workingDirectory_, errno);
      }
    }
    // Non-blocking: a FIFO must not hold the host up.
    Fd fd(::openat(directory_.get(), path.c_str(), flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (!fd) {
      if (errno == EISDIR) {
        throw Error(ErrorCode::kInvalidArgument, field + ": " + path + " is a folder", "name a file");
      }
      throw systemError(field + ": " + path, errno);
    }
    return fd;
  }
  struct stat look(const Fd& fd) {
    struct stat info = {};
    if (::fstat(fd.get(), &info) != 0) {
      throw systemError("looking at a file", errno);
    }
    return info;
  }
  void keep(schema::FileRef::Builder ref, Fd fd) {
    const auto resource = static_cast<std::uint32_t>(opened_.files.size() + 1);
    ref.setResource(resource);
    ref.setPath("");
    opened_.files.push_back({resource, std::move(fd)});
  }

  std::string workingDirectory_;
  Fd directory_;  // once a relative path asks for it
  OpenedResources opened_;
};

}  // namespace

OpenedResources openResources(schema::VmConfig::Builder config, const std::string& workingDirectory) {
  Opener opener(workingDirectory);
  auto boot = config.getBoot();
  if (boot.hasKernel()) {
    opener.file("boot.kernel", boot.getKernel());
  }
  if (boot.hasInitrd()) {
    opener.file("boot.initrd", boot.getInitrd());
  }
  if (boot.hasFirmware()) {
    opener.file("boot.firmware", boot.getFirmware());
  }
  unsigned index = 0;
  for (auto disk : config.getDisks()) {
    opener.disk("disks[" + std::to_string(index++) + "]", disk);
  }
  return opener.take();
}

}  // namespace vmmhost::vm
