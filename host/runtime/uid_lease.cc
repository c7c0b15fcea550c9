#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <cerrno>

#include "host/runtime/directories.h"
#include "host/runtime/files.h"
#include "host/runtime/uid_sweep.h"

namespace vmmhost::runtime {
namespace {

// The folder of the leases; nothing if it is not there and `open` makes none.
template <typename Open>
Fd leaseFolder(const std::string& path, Open open) {
  const std::size_t slash = path.rfind('/');
  const std::string parent = path.substr(0, slash);
  const Fd anchor(::open(parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!anchor) {
    throw systemError("opening the folder " + parent, errno);
  }
  const Fd folder = open(anchor.get(), path.substr(slash + 1), path);
  return folder ? open(folder.get(), kUidFolder, path + '/' + kUidFolder) : Fd();
}

}  // namespace

UidLease UidLease::take(const std::string& path) {
  Fd folder = leaseFolder(path, makeOwnFolder);
  // Not from the start: a process of a VM that died a moment ago may still be ending under its number.
  std::uint32_t start = 0;
  if (::getrandom(&start, sizeof(start), 0) != sizeof(start)) {
    throw systemError("asking for random numbers", errno);
  }
  for (uid_t step = 0; folder && step < kCount; ++step) {
    const uid_t number = (start + step) % kCount;
    if (Fd lock = lockRemovable(folder.get(), std::to_string(number), O_CREAT); lock) {
      UidLease lease;
      lease.uid_ = kFirstUid + number;
      lease.parent_ = std::move(folder);
      lease.lock_ = std::move(lock);
      return lease;
    }
  }
  throw Error(ErrorCode::kResourceExhausted, "all user ids for VMs are in use", "end some VMs", true);
}

UidLease::~UidLease() {
  if (lock_) {
    ::unlinkat(parent_.get(), std::to_string(uid_ - kFirstUid).c_str(), 0);
  }
}

UidLease& UidLease::operator=(UidLease&& other) noexcept {
  if (this != &other) {
    const UidLease old(std::move(*this));
    uid_ = other.uid_;
    parent_ = std::move(other.parent_);
    lock_ = std::move(other.lock_);
  }
  return *this;
}

void sweepUidLeases(const std::string& path) noexcept {
  try {
    const Fd folder = leaseFolder(path, openOwnFolder);
    if (!folder) {
      return;
    }
    for (const std::string& number : folderEntries(folder.get(), UidLease::kCount)) {
      if (const Fd lock = lockRemovable(folder.get(), number, 0); lock) {
        ::unlinkat(folder.get(), number.c_str(), 0);
      }
    }
  } catch (const Error&) {
    // Nothing depends on it.
  }
}

}  // namespace vmmhost::runtime
