// What lies around on a host: other people's sockets, files and programs. In an empty root the first call ends it; in a
// system root most can be tried.
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/hostile/attack.h"
#include "tests/hostile/attacks/raw.h"
#include "tests/hostile/traps.h"

namespace vmmhost::hostile {
namespace {

// Tries `attempt` on the path of a trap in each folder; 0 as soon as one succeeds, otherwise `otherwise`.
template <typename Attempt>
int tryTraps(const Loot& loot, Trap trap, int otherwise, Attempt attempt) {
  char path[108];
  for (const char* folder : kTrapFolders) {
    trapPath(path, folder, loot.token, trap);
    if (attempt(path)) {
      return 0;
    }
  }
  return otherwise;
}

bool canOpen(const char* path, int flags) {
  const int file = ::open(path, flags | O_CLOEXEC, 0600);
  if (file >= 0) {
    ::close(file);
  }
  return file >= 0;
}

// By every way that leads to a root: its own, that of its processes, that of its working folder.
int readHostFiles(const Loot& loot) {
  return tryTraps(loot, Trap::kSecret, ENOENT, [](const char* path) {
    if (std::strncmp(path, "/usr/", 5) == 0) {
      return false;  // seen on purpose
    }
    for (const char* root :
         {"", "/proc/self/root", "/proc/1/root", "/proc/self/cwd", "/..", "/proc/self/task/1/root"}) {
      char full[256];
      std::snprintf(full, sizeof full, "%s%s", root, path);
      if (canOpen(full, O_RDONLY)) {
        return true;
      }
    }
    return false;
  });
}

int writeEverywhere(const Loot& loot) {
  static constexpr const char* kPlaces[] = {"/proc/sys/kernel/core_pattern",
                                            "/proc/sys/kernel/hostname",
                                            "/proc/sys/user/max_user_namespaces",
                                            "/proc/sysrq-trigger",
                                            "/proc/self/mem",
                                            "/proc/self/uid_map",
                                            "/proc/self/oom_score_adj",
                                            "/proc/self/comm",
                                            "/proc/1/coredump_filter",
                                            "/etc/ld.so.cache",
                                            "/etc/ld.so.preload",
                                            "/usr/bin/true",
                                            "/usr/lib/vmmhost-hostile",
                                            "/bin/vmmhost-hostile",
                                            "/dev/vmmhost-hostile",
                                            "/dev/shm/vmmhost-hostile",
                                            "/tmp/vmmhost-hostile",
                                            "/vmmhost-hostile"};
  for (const char* place : kPlaces) {
    if (canOpen(place, O_WRONLY) || canOpen(place, O_WRONLY | O_CREAT | O_EXCL)) {
      return 0;
    }
  }
  return tryTraps(loot, Trap::kSecret, EROFS, [](const char* path) { return canOpen(path, O_WRONLY | O_TRUNC); });
}

int removeEverywhere(const Loot& loot) {
  return tryTraps(loot, Trap::kSecret, EROFS, [](const char* path) {
    char other[128];
    std::snprintf(other, sizeof other, "%s.new", path);
    return ::unlink(path) == 0 || ::syscall(__NR_rename, path, other) == 0 || ::syscall(__NR_mkdir, other, 0700) == 0;
  });
}

sockaddr_un addressOf(const char* path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
  return address;
}

int openListener(const Loot& loot) {
  return tryTraps(loot, Trap::kStream, ENXIO, [](const char* path) { return canOpen(path, O_RDWR); });
}

int connectListener(const Loot& loot) {
  return tryTraps(loot, Trap::kStream, ECONNREFUSED, [&](const char* path) {
    const sockaddr_un address = addressOf(path);
    return raw(__NR_connect, loot.rpc, &address, sizeof address) == 0;
  });
}

int socketToListener(const Loot& loot) {
  return tryTraps(loot, Trap::kDatagram, ECONNREFUSED, [](const char* path) {
    const sockaddr_un address = addressOf(path);
    const long socket = ::syscall(__NR_socket, AF_UNIX, SOCK_DGRAM, 0);
    return raw(__NR_sendto, socket, "x", 1, 0, &address, sizeof address) == 0;
  });
}

int sendThrough(int socket, void* address, socklen_t length) {
  char byte = 'x';
  iovec data{&byte, 1};
  msghdr message{};
  message.msg_name = address;
  message.msg_namelen = length;
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  return raw(__NR_sendmsg, socket, &message, MSG_NOSIGNAL);
}

// On the one kind of socket that can be made in the system jail.
int sendToListener(const Loot& loot) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
    return errno;
  }
  ::close(pair[1]);
  const int result = tryTraps(loot, Trap::kDatagram, EISCONN, [&](const char* path) {
    sockaddr_un address = addressOf(path);
    return sendThrough(pair[0], &address, sizeof address) == 0;
  });
  char name[108];
  trapPath(name, "", loot.token, Trap::kDatagram);
  sockaddr_un hidden = addressOf(name);
  hidden.sun_path[0] = '\0';
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + std::strlen(name));
  const bool isReached = sendThrough(pair[0], &hidden, length) == 0;
  ::close(pair[0]);
  return isReached ? 0 : result;
}

// Starts a program of the root; its exit code, or 128 and the signal that ended it. Negative: it could not be started.
int runProgram(const char* const* arguments) {
  const long child = ::syscall(__NR_fork);
  if (child == 0) {
    ::execv(arguments[0], const_cast<char* const*>(arguments));
    ::_exit(127);
  }
  int status = 0;
  if (child < 0 || ::waitpid(static_cast<pid_t>(child), &status, 0) != child) {
    return -errno;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int runShell(const Loot&) {
  const char* const arguments[] = {"/bin/sh", "-c", "exit 42", nullptr};
  return runProgram(arguments) == 42 ? 0 : ENOEXEC;
}

// A program's sockets are the filter's, too.
int connectByProgram(const Loot& loot) {
  char path[108];
  trapPath(path, "/usr", loot.token, Trap::kStream);
  char text[256];
  std::snprintf(text, sizeof text,
                "use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0) && connect(S, sockaddr_un('%s')) ? exit 0 : exit 1",
                path);
  const char* const arguments[] = {"/usr/bin/perl", "-e", text, nullptr};
  const int code = runProgram(arguments);
  return code == 0 ? 0 : code == 128 + SIGSYS ? EPERM : ENOEXEC;
}

int findSetuid(const Loot&) {
  struct statvfs status {};
  if (::statvfs("/usr", &status) != 0) {
    return errno;
  }
  return (status.f_flag & ST_NOSUID) != 0 ? EPERM : 0;
}

int bombWithForks(const Loot&) {
  for (int i = 0; i < 5000; ++i) {
    const long child = ::syscall(__NR_fork);
    if (child < 0) {
      return errno;
    }
    while (child == 0) {
      ::pause();
    }
  }
  return 0;
}

int leaveOrphan(const Loot&) {
  const long child = ::syscall(__NR_fork);
  if (child == 0) {
    ::setsid();
    const long grandchild = ::syscall(__NR_fork);
    while (grandchild == 0) {
      ::pause();
    }
    ::_exit(0);
  }
  int status = 0;
  return child < 0 || ::waitpid(static_cast<pid_t>(child), &status, 0) < 0 ? errno : 0;
}

// What the kernel tells of the machine, its disks, other users' locks and this boot.
int lookAtTheHost(const Loot&) {
  for (const char* name :
       {"interrupts", "locks", "diskstats", "partitions", "sys/kernel/random/boot_id", "sys/kernel/osrelease",
        "cmdline", "cpuinfo", "meminfo", "stat", "modules", "net", "sysvipc", "bus", "irq", "fs"}) {
    char path[64];
    std::snprintf(path, sizeof path, "/proc/%s", name);
    if (canOpen(path, O_RDONLY)) {
      return 0;
    }
  }
  return ENOENT;
}

// The control group has the name of the VM, and its folder those of the host's groups around it: "0::/", "4:memory:/".
int findOwnName(const Loot&) {
  const int file = ::open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    return errno;
  }
  static char text[16384];
  const ssize_t got = ::read(file, text, sizeof text - 1);
  ::close(file);
  text[got > 0 ? got : 0] = '\0';
  for (char* line = ::strtok(text, "\n"); line != nullptr; line = ::strtok(nullptr, "\n")) {
    const char* path = std::strchr(std::strchr(line, ':') + 1, ':') + 1;
    if (std::strcmp(path, "/") != 0) {
      return 0;
    }
  }
  return ENOENT;
}

// Processes besides its own, seen in /proc.
int findOthers(const Loot&) {
  DIR* folder = ::opendir("/proc/processes");
  if (folder == nullptr) {
    return errno;
  }
  int others = 0;
  while (const dirent* entry = ::readdir(folder)) {
    const int pid = std::atoi(entry->d_name);
    others += pid > 1 ? 1 : 0;
  }
  ::closedir(folder);
  return others > 0 ? 0 : ESRCH;
}

// Through /proc a descriptor can be opened anew, with other rights than it was handed over with.
int reopenDisk(const Loot& loot) {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/fd/%d", loot.disk);
  return canOpen(path, O_RDWR) || canOpen(path, O_RDONLY) || canOpen(path, O_WRONLY | O_TRUNC) ? 0 : EACCES;
}

int reopenSocket(const Loot& loot) {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/fd/%d", loot.rpc);
  return canOpen(path, O_RDWR) ? 0 : errno;
}

// The worker's own code from memory: it goes on as a worker, and is not the planned file.
int becomeMemory(const Loot& loot) {
  const int memory = static_cast<int>(::syscall(__NR_memfd_create, "x", MFD_CLOEXEC));
  if (memory < 0) {
    return errno;
  }
  const int self = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  static char block[65536];
  for (ssize_t got = 0; (got = ::read(self, block, sizeof block)) > 0;) {
    if (::write(memory, block, static_cast<std::size_t>(got)) != got) {
      return errno;
    }
  }
  ::close(self);
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/fd/%d", memory);
  const char* const arguments[] = {"hostile-worker", "nothing", "constructor", loot.token, nullptr};
  ::execv(path, const_cast<char* const*>(arguments));
  return errno;
}

// As many descriptors on their way in sockets as the kernel lets one user have, and left there.
int keepDescriptorsInFlight(const Loot& loot) {
  constexpr int kMost = 250;  // SCM_MAX_FD is 253
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) {
    return errno;
  }
  char byte = 'x';
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(kMost * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(kMost * sizeof(int));
  for (int i = 0; i < kMost; ++i) {
    std::memcpy(CMSG_DATA(header) + static_cast<std::size_t>(i) * sizeof(int), &loot.rpc, sizeof(int));
  }
  for (int i = 0; i < 64; ++i) {
    if (const int error = raw(__NR_sendmsg, pair[0], &message, MSG_NOSIGNAL)) {
      return error;
    }
  }
  return 0;
}

// More than the guest and the worker may have together, in steps, so that a bound is seen before the machine is full.
int takeMemory(const Loot&) {
  constexpr std::size_t kStep = std::size_t{16} << 20;
  for (int i = 0; i < 36; ++i) {
    void* more = ::mmap(nullptr, kStep, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (more == MAP_FAILED) {
      return errno;
    }
  }
  return 0;
}

int lockMemoryByMapping(const Loot&) {
  constexpr std::size_t kBytes = std::size_t{4} << 20;
  void* locked = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0);
  return locked == MAP_FAILED ? errno : 0;
}

constexpr Attack kAttacks[] = {
    {"read-host-files", readHostFiles, kKilled, fails(ENOENT)},
    {"write-everywhere", writeEverywhere, kKilled, fails(EROFS)},
    // Its own, and the kernel would allow it: Landlock does not.
    {"write-own-proc", [](const Loot&) { return rawOpen(__NR_openat, AT_FDCWD, "/proc/self/oom_score_adj", O_WRONLY); },
     kKilled, fails(EACCES)},
    {"remove-everywhere", removeEverywhere, kKilled, fails(EROFS)},
    {"listener-open", openListener, kKilled, fails(ENXIO)},
    {"listener-connect", connectListener},
    {"listener-datagram", socketToListener},
    {"listener-send", sendToListener},
    {"program-run", runShell, kKilled, kHarmless},
    {"program-connect", connectByProgram, kKilled, fails(EPERM)},
    {"program-setuid", findSetuid, kKilled, fails(EPERM)},
    {"fork-bomb", bombWithForks, kKilled, fails(EAGAIN)},
    {"orphan", leaveOrphan, kKilled, kHarmless},
    {"other-processes", findOthers, kKilled, fails(ESRCH)},
    {"host-in-proc", lookAtTheHost, kKilled, fails(ENOENT)},
    {"own-name", findOwnName, kKilled, fails(ENOENT)},
    {"disk-reopen", reopenDisk, kKilled, fails(EACCES), When::kHolding},
    {"socket-reopen", reopenSocket, kKilled, fails(ENXIO)},
    {"memfd-become", becomeMemory, kKilled, fails(EINVAL), When::kConstructor},
    {"descriptors-in-flight", keepDescriptorsInFlight},
    {"take-memory", takeMemory, fails(ENOMEM), kOutOfMemory, When::kStart},
    {"lock-by-mapping", lockMemoryByMapping, fails(EPERM), fails(EPERM)},
    // No attack: a worker that goes on, for tests of what happens to others meanwhile.
    {"neighbour", [](const Loot&) { return 0; }, kHarmless, kHarmless, When::kStays},
};

}  // namespace

std::span<const Attack> systemAttacks() {
  return kAttacks;
}

}  // namespace vmmhost::hostile
