#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "ipc/jail/spawn/user_namespace.h"
#include "vmmhost/fd.h"

namespace vmmhost::spawn {
namespace {

// The first character of a file of /proc/sys; 0: there is no such file.
char firstOf(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  char first = 0;
  return file && ::read(file.get(), &first, 1) == 1 ? first : '\0';
}

// The kinds of namespaces of which the system allows none (namespaces(7), /proc/sys/user), with the whole path.
std::string forbiddenNamespaces() {
  std::string found;
  for (const char* kind : {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"}) {
    const std::string name = std::string("max_") + kind + "_namespaces";
    if (firstOf("/proc/sys/user/" + name) == '0') {
      found += (found.empty() ? "user." : ", user.") + name;
    }
  }
  return found;
}

// Debian and Ubuntu each have a switch for ordinary users.
bool isSwitchedOff() {
  return ::geteuid() != 0 && (firstOf("/proc/sys/kernel/unprivileged_userns_clone") == '0' ||
                              firstOf("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == '1');
}

// Mounts outside of the root folder are not listed (proc(5)): what is listed without one at "/" is a part of a tree.
bool isRootListed() {
  std::ifstream mounts("/proc/self/mountinfo");
  bool isListed = false;
  bool isEmpty = true;
  for (std::string line; !isListed && std::getline(mounts, line); isEmpty = false) {
    std::istringstream words(line);
    std::string id, parent, device, root, target;
    isListed = words >> id >> parent >> device >> root >> target && target == "/";
  }
  return isListed || isEmpty;
}

// From a folder that is outside of the root, ".." leads on upwards. So the root is changed once more, to a folder
// below, and the way up from the old one is looked at: at the root of the mount namespace it leads nowhere.
bool hasFolderAboveRoot() {
  bool isAbove = false;
  // A thread with a root and a working directory of its own, which end with it.
  std::thread([&isAbove] {
    const Fd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    struct statx here = {};
    struct statx above = {};
    const auto look = [](int folder, const char* path, struct statx& seen) {
      return ::statx(folder, path, AT_EMPTY_PATH, STATX_INO | STATX_MNT_ID, &seen) == 0;
    };
    if (!root || ::unshare(CLONE_FS) != 0 || !look(root.get(), "", here)) {
      return;
    }
    for (const char* below : {"/proc", "/dev", "/usr", "/tmp"}) {
      if (::chroot(below) == 0) {
        isAbove = look(root.get(), "..", above) &&
                  (above.stx_ino != here.stx_ino || above.stx_dev_major != here.stx_dev_major ||
                   above.stx_dev_minor != here.stx_dev_minor || above.stx_mnt_id != here.stx_mnt_id);
        return;
      }
    }
  }).join();
  return isAbove;
}

}  // namespace

int tryUserNamespace() {
  const long pid = ::syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
  if (pid == 0) {
    ::_exit(0);
  }
  const int failure = pid < 0 ? errno : 0;
  while (pid > 0 && ::waitpid(static_cast<pid_t>(pid), nullptr, 0) < 0 && errno == EINTR) {
  }
  return failure;
}

bool isInChroot() {
  return !isRootListed() || hasFolderAboveRoot();
}

Error namespaceError(const std::string& name, int errnoValue) {
  const std::string message =
      systemError("the kernel refused the " + name + "'s user namespace or another one (clone3)", errnoValue).message();
  if (errnoValue == EPERM || errnoValue == EACCES) {
    if (isInChroot()) {
      return Error(ErrorCode::kConfinement, message + "; " + std::string(kChrootText), std::string(kChrootHint));
    }
    return Error(ErrorCode::kConfinement, message,
                 isSwitchedOff()
                     ? "user namespaces are switched off here; `vmmhost doctor` tells how to switch them on"
                     : "they are not switched off, but refused to this process; `vmmhost doctor` tells more");
  }
  if (errnoValue == ENOSPC || errnoValue == EUSERS) {
    const std::string none = forbiddenNamespaces();
    if (!none.empty()) {
      return Error(ErrorCode::kConfinement, message + "; " + none + " is 0",
                   "as root: sysctl " + none.substr(0, none.find(',')) + "=15000");
    }
    return Error(ErrorCode::kConfinement, message,
                 "a limit of namespaces is reached; as root: sysctl user.max_user_namespaces=15000");
  }
  return Error(ErrorCode::kConfinement, message, "`vmmhost doctor` tells what this system lacks");
}

}  // namespace vmmhost::spawn
