#include "host/vm/resources.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <algorithm>
#include <cerrno>

#include "host/base/text.h"
#include "host/config/mac.h"
#include "host/net/tap.h"
#include "host/vm/lock_holder.h"
#include "vmmhost/error.h"

namespace vmmhost::vm {
namespace {

constexpr std::size_t kMaxShownPathBytes = 1024;
constexpr off_t kSectorBytes = 512;
// Each takes a thread of the worker, and descriptors.
constexpr std::uint32_t kMaxQueuesPerNic = 8;
constexpr std::uint32_t kMaxQueues = 64;

std::string diskField(std::size_t index) {
  return "disks[" + std::to_string(index) + "]";
}

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
    const std::string subject = subjectOf(field, path);
    Fd fd = openFile(subject, path, O_RDONLY);
    const struct stat info = look(fd);
    if (!S_ISREG(info.st_mode)) {
      throw Error(ErrorCode::kInvalidArgument, subject + " is " + kindOf(info.st_mode), "name a regular file");
    }
    if (info.st_size == 0) {
      throw Error(ErrorCode::kInvalidArgument, subject + " is empty");
    }
    opened_.largestBootFile =
        std::max<std::uint64_t>(opened_.largestBootFile, static_cast<std::uint64_t>(info.st_size));
    keep(ref, std::move(fd));
  }

  void disk(schema::Disk::Builder disk) {
    const std::string path = disk.getFile().getPath().cStr();
    const std::string field = diskField(disks_.size());
    const std::string subject = subjectOf(field, path);
    const bool readOnly = disk.getReadOnly();
    Fd lock = openFile(subject, path, O_RDONLY);
    const struct stat kind = look(lock);
    const bool isBlockDevice = S_ISBLK(kind.st_mode);
    if (!S_ISREG(kind.st_mode) && !isBlockDevice) {
      throw Error(ErrorCode::kInvalidArgument, subject + " is " + kindOf(kind.st_mode),
                  "name a regular file or a block device");
    }
    const DiskFile file{kind.st_dev, kind.st_ino, isBlockDevice ? kind.st_rdev : 0, readOnly};
    for (std::size_t other = 0; other < disks_.size(); ++other) {
      if (disks_[other].isSameAs(file) && !(disks_[other].readOnly && readOnly)) {
        throw Error(ErrorCode::kInvalidArgument, subject + " is the same file as " + diskField(other),
                    "a file can be two disks of a VM if both are read-only");
      }
    }
    disks_.push_back(file);
    if (::flock(lock.get(), (readOnly ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0) {
      const std::string holders = lockHolders(lock);
      throw Error(ErrorCode::kFailedPrecondition,
                  subject + " is in use by another VM" +
                      (holders.empty() ? "" : ", or by a program that locked it: " + holders),
                  "stop that VM, or let all of its users have it read-only", true);
    }
    // Through the descriptor, so that the file opened is the file locked. A block device for this process alone, as
    // mounting it would, and once: each time that one was open for writing, udev looks at it and locks it meanwhile.
    const int flags = (readOnly ? O_RDONLY : O_RDWR | (isBlockDevice ? O_EXCL : 0)) |
                      (disk.getCache() == schema::Disk::Cache::DIRECT ? O_DIRECT : 0);
    Fd fd = openFile(subject, "/proc/self/fd/" + std::to_string(lock.get()), flags);
    opened_.locks.push_back(std::move(lock));
    if (!isBlockDevice) {
      waitForDisk(fd);
      checkLength(subject, look(fd), disk.getFormat());  // which another VM's worker may have changed until now
      if (!readOnly) {
        plan(field, path, subject, fd, disk.getFormat());
      }
    }
    keep(disk.getFile(), std::move(fd));
  }

  void nics(schema::VmConfig::Builder config) {
    const std::uint32_t count = config.getNics().size();
    const std::uint32_t mostQueues =
        count == 0 ? 0 : std::min({config.getCpus().getCount(), kMaxQueuesPerNic, std::max(1U, kMaxQueues / count)});
    for (std::uint32_t index = 0; index < count; ++index) {
      const std::string field = "nics[" + std::to_string(index) + "]";
      aboutField(field, [&] { nic(field, config.getNics()[index], index, config.getName().cStr(), mostQueues); });
    }
  }

  OpenedResources take() { return std::move(opened_); }

 private:
  struct DiskFile {
    dev_t device = 0;
    ino_t inode = 0;
    dev_t blockDevice = 0;  // which may have several names, each with an inode of its own
    bool readOnly = false;

    bool isSameAs(const DiskFile& other) const {
      return (device == other.device && inode == other.inode) || (blockDevice != 0 && blockDevice == other.blockDevice);
    }
  };

  static void checkLength(const std::string& subject, const struct stat& info, schema::Disk::Format format) {
    if (info.st_size == 0) {
      throw Error(ErrorCode::kInvalidArgument, subject + " is empty", "truncate -s 1G FILE makes a disk of 1 GiB");
    }
    if (format == schema::Disk::Format::RAW && info.st_size % kSectorBytes != 0) {
      throw Error(ErrorCode::kInvalidArgument,
                  subject + " is " + std::to_string(info.st_size) + " bytes long, which is not a multiple of " +
                      std::to_string(kSectorBytes),
                  "a disk has whole sectors: `truncate -s %512 FILE` makes a file longer until it has");
    }
  }

  void plan(const std::string& field, const std::string& path, const std::string& subject, const Fd& fd,
            schema::Disk::Format format) {
    Fd own = fd.duplicate();
    try {
      opened_.diskPlans.add(subject, std::move(own), format);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kInvalidArgument) {
        throw error.withMessage(subject + ": " + error.message());
      }
      const std::string format = field + ".format";
      throw error.withMessage(subjectOf(format, path) + ": " + error.message()).withField(format);
    }
  }

  void nic(const std::string& field, schema::Nic::Builder nic, std::uint32_t index, const char* vmName,
           std::uint32_t mostQueues) {
    if (nic.getMac().size() == 0) {
      nic.setMac(config::deriveMac(vmName, index));
    }
    auto attachment = nic.getAttachment();
    if (attachment.isNetwork()) {
      throw Error(ErrorCode::kUnsupported, field + ".attachment.network: this version attaches no networks",
                  "name an existing TAP device as attachment.tap")
          .withField(field + ".attachment.network");
    }
    if (!attachment.isTap()) {
      return;
    }
    const std::string name = attachment.getTap().cStr();
    const std::string tapField = field + ".attachment.tap";
    net::OpenedTap tap = aboutField(tapField, [&] { return net::openTap(tapField, name, mostQueues); });
    if (nic.getMtu() > tap.mtu) {
      throw Error(ErrorCode::kInvalidArgument,
                  field + ".mtu: " + std::to_string(nic.getMtu()) + " is more than the " + std::to_string(tap.mtu) +
                      " of TAP device " + name,
                  "`ip link set " + name + " mtu " + std::to_string(nic.getMtu()) + "` raises it")
          .withField(field + ".mtu");
    }
    if (nic.getMtu() == 0) {
      nic.setMtu(tap.mtu);
    }
    for (std::uint32_t queue = 0; queue < tap.queues.size(); ++queue) {
      opened_.nicQueues.push_back({index, queue, std::move(tap.queues[queue])});
    }
  }

  static std::string subjectOf(const std::string& field, const std::string& path) {
    return field + ": " + printable(path, kMaxShownPathBytes);
  }
  Fd openFile(const std::string& subject, const std::string& path, int flags) {
    if (!directory_ && !path.starts_with('/')) {
      directory_.reset(::open(workingDirectory_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
      if (!directory_) {
        throw systemError(subject + ": working directory " + workingDirectory_, errno);
      }
    }
    // Non-blocking: a FIFO must not hold the host up.
    Fd fd(::openat(directory_.get(), path.c_str(), flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (!fd) {
      if (errno == EISDIR) {
        throw Error(ErrorCode::kInvalidArgument, subject + " is a folder", "name a file");
      }
      if (errno == ENXIO) {
        throw Error(ErrorCode::kInvalidArgument, subject + " is a socket, or a device that is not there",
                    "name a regular file");
      }
      if (errno == EBUSY && (flags & O_EXCL) != 0) {
        throw Error(ErrorCode::kFailedPrecondition,
                    subject + " is in use: something of it is mounted, or it is part of another device",
                    "`lsblk` shows what it is used for", true);
      }
      if (errno == EINVAL && (flags & O_DIRECT) != 0) {
        throw Error(ErrorCode::kInvalidArgument, subject + ": its file system has no direct input and output",
                    "leave out the disk's cache, or say \"writeback\"");
      }
      const Error error = systemError(subject, errno);
      const bool writing = (flags & O_ACCMODE) == O_RDWR && error.code() == ErrorCode::kPermissionDenied;
      throw writing ? Error(error.code(), error.message(), "a disk that is only read needs no such right: PATH,ro")
                    : error;
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
  // What is opened non-blocking a ring of io_uring reads without handing it to another thread first, even where that
  // waits for a disk or a network all the same. Right only for files in memory.
  static void waitForDisk(const Fd& fd) {
    struct statfs system = {};
    const int flags = ::fcntl(fd.get(), F_GETFL);
    if (::fstatfs(fd.get(), &system) == 0 && system.f_type != TMPFS_MAGIC && flags >= 0) {
      ::fcntl(fd.get(), F_SETFL, flags & ~O_NONBLOCK);
    }
  }
  void keep(schema::FileRef::Builder ref, Fd fd) {
    const auto resource = static_cast<std::uint32_t>(opened_.files.size() + 1);
    ref.setResource(resource);
    ref.setPath("");
    opened_.files.push_back({resource, std::move(fd)});
  }

  std::string workingDirectory_;
  Fd directory_;  // once a relative path asks for it
  std::vector<DiskFile> disks_;
  OpenedResources opened_;
};

// Workers that were built before errors had a field say it at the beginning of the message only.
std::string fieldOf(const Error& error) {
  return error.field().empty() ? error.message().substr(0, error.message().find(": ")) : error.field();
}

}  // namespace

OpenedResources openResources(schema::VmConfig::Builder config, const std::string& workingDirectory) {
  Opener opener(workingDirectory);
  const auto open = [&](const char* field, schema::FileRef::Builder file) {
    aboutField(field, [&] { opener.file(field, file); });
  };
  auto boot = config.getBoot();
  if (boot.hasKernel()) {
    open("boot.kernel", boot.getKernel());
  }
  if (boot.hasInitrd()) {
    open("boot.initrd", boot.getInitrd());
  }
  if (boot.hasFirmware()) {
    open("boot.firmware", boot.getFirmware());
  }
  for (std::uint32_t index = 0; index < config.getDisks().size(); ++index) {
    aboutField(diskField(index), [&] { opener.disk(config.getDisks()[index]); });
  }
  opener.nics(config);
  return opener.take();
}

Error nameFile(const Error& error, schema::VmConfig::Reader config) {
  const std::string field = fieldOf(error);
  std::string path;
  const auto look = [&](const std::string& name, schema::FileRef::Reader file) {
    if (field.starts_with(name) && (field.size() == name.size() || field[name.size()] == '.')) {
      path = printable(file.getPath().cStr(), kMaxShownPathBytes);
    }
  };
  look("boot.kernel", config.getBoot().getKernel());
  look("boot.initrd", config.getBoot().getInitrd());
  look("boot.firmware", config.getBoot().getFirmware());
  for (std::uint32_t index = 0; index < config.getDisks().size(); ++index) {
    look(diskField(index), config.getDisks()[index].getFile());
  }
  if (path.empty()) {
    return error;
  }
  // The path goes behind the field that the message begins with, or both before a message that does not.
  std::string rest = ": " + error.message();
  const std::size_t bare = 2 + field.size();
  if (error.message().starts_with(field) &&
      (rest.size() == bare || rest[bare] == ' ' || rest.compare(bare, 2, ": ") == 0)) {
    rest.erase(0, bare);
  }
  return error.withMessage(field + ": " + path + rest).withField(field);
}

}  // namespace vmmhost::vm
