// Binds of files that somebody checked: the file is known by what it is, not by the path that leads to it.
#include <fcntl.h>
#include <linux/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "ipc/jail/spawn/stub.h"

namespace vmmhost::spawn {

std::uint64_t Plan::Mount::attributes() const noexcept {
  const std::uint64_t kind = device ? MOUNT_ATTR_NOEXEC : MOUNT_ATTR_NODEV | (executable ? 0 : MOUNT_ATTR_NOEXEC);
  return MOUNT_ATTR_NOSUID | kind | (readOnly ? MOUNT_ATTR_RDONLY : 0);
}

int identify(int file, FileIdentity& identity) noexcept {
  struct statx seen = {};
  if (::syscall(SYS_statx, file, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_TYPE | STATX_INO, &seen) != 0) {
    return errno;
  }
  identity.deviceMajor = seen.stx_dev_major;
  identity.deviceMinor = seen.stx_dev_minor;
  identity.inode = seen.stx_ino;
  identity.type = seen.stx_mode & S_IFMT;
  identity.isMount = (seen.stx_attributes_mask & seen.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0 ? 1 : 0;
  return 0;
}

int openChecked(const Plan::Mount& mount) noexcept {
  // A tree can be cloned in its own mount namespace only, so that the caller's descriptor is of no use here: the path
  // leads to the file once more, and the file has to be the same. The caller holds it open, so that no other file can
  // have got its inode meanwhile.
  const int file = ::open(mount.source.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (file < 0) {
    return -errno;
  }
  FileIdentity found;
  int error = identify(file, found);
  if (error == 0 && !(found == mount.identity)) {
    error = ESTALE;
  }
  if (error != 0) {
    ::close(file);
    return -error;
  }
  return file;
}

int attachTree(int file, const Plan::Mount& mount) noexcept {
  const int tree = static_cast<int>(
      ::syscall(SYS_open_tree, file, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE));
  int error = tree < 0 ? errno : 0;
  ::close(file);
  if (error != 0) {
    return error;
  }
  mount_attr attributes = {};
  attributes.attr_set = mount.attributes();
  if (::syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof(attributes)) != 0 ||
      ::syscall(SYS_move_mount, tree, "", AT_FDCWD, mount.target.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0) {
    error = errno;
  }
  ::close(tree);
  return error;
}

}  // namespace vmmhost::spawn
