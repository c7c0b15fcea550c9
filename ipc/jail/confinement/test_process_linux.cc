#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "ipc/jail/confinement/test_process.h"
#include "tests/support/built.h"

namespace vmmhost::confinement {
namespace {

constexpr unsigned kInsideId = 1000;
constexpr unsigned kRootsWorkerId = 61234;

unsigned hostId() {
  return ::geteuid() == 0 ? kRootsWorkerId : ::geteuid();
}
unsigned hostGroup() {
  return ::geteuid() == 0 ? kRootsWorkerId : ::getegid();
}

[[noreturn]] void giveUp(const char* what) {
  std::fprintf(stderr, "test process: %s: %s\n", what, std::strerror(errno));
  ::_exit(99);
}

void require(bool ok, const char* what) {
  if (!ok) {
    giveUp(what);
  }
}

void buildRoot(const Jail& jail) {
  require(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, "private");
  require(::mount("none", "/proc", "tmpfs", 0, "size=64k") == 0, "tmpfs");
  require(::chdir("/proc") == 0, "chdir");
  if (jail.bindUsr) {
    require(::mkdir("usr", 0755) == 0 && ::mount("/usr", "usr", nullptr, MS_BIND | MS_REC, nullptr) == 0, "bind");
    if (!jail.bindIsWritable) {
      require(::mount(nullptr, "usr", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) == 0, "bind read-only");
    }
  }
  require(::syscall(SYS_pivot_root, ".", ".") == 0 && ::umount2(".", MNT_DETACH) == 0 && ::chdir("/") == 0, "pivot");
  if (jail.without.count("read-only") == 0) {
    require(::mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) == 0, "read-only");
  }
}

void becomeIds(const Jail& jail, bool asRoot, unsigned uid, unsigned gid) {
  if (asRoot && jail.without.count("groups") == 0) {
    require(::syscall(SYS_setgroups, 0, nullptr) == 0, "setgroups");
  }
  require(::syscall(SYS_setresgid, gid, gid, gid) == 0, "setresgid");
  require(::syscall(SYS_setresuid, uid, uid, uid) == 0, "setresuid");
}

void dropRights(const Jail& jail) {
  const auto has = [&](const char* part) { return jail.without.count(part) == 0; };
  if (!has("inheritable")) {  // possible only while it is in the bounding set
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2] = {};
    require(::syscall(SYS_capget, &header, data) == 0, "capget");
    data[0].inheritable = 1u << CAP_NET_RAW;
    require(::syscall(SYS_capset, &header, data) == 0, "capset");
  }
  if (has("bounding")) {
    for (int capability = 0; ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; ++capability) {
      require(::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0, "bounding set");
    }
  }
  if (has("seccomp")) {
    sock_filter allow{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
    sock_fprog program{1, &allow};
    if (has("no-new-privs")) {
      require(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
    }
    require(::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0, "seccomp");
  }
  if (has("no-new-privs")) {
    require(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
  }
}

void setCapabilities(const Jail& jail) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2] = {};
  if (jail.without.count("inheritable") != 0) {
    none[0].inheritable = 1u << CAP_NET_RAW;
  }
  require(::syscall(SYS_capset, &header, none) == 0, "capset");
}

[[noreturn]] void becomeTarget(const Jail& jail, bool asRoot, int socket, int executable) {
  char go = 0;
  if (::read(socket, &go, 1) != 1) {
    ::_exit(98);
  }
  const bool userNamespace = jail.without.count("user") == 0;
  if (userNamespace) {
    becomeIds(jail, asRoot, kInsideId, kInsideId);
  }
  const bool mountNamespace = jail.without.count("mnt") == 0;
  if (mountNamespace) {
    buildRoot(jail);
  }
  dropRights(jail);
  if (!userNamespace) {
    ::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
    becomeIds(jail, asRoot, kRootsWorkerId, kRootsWorkerId);
  }
  setCapabilities(jail);
  std::vector<char*> arguments{const_cast<char*>("target")};
  for (const std::string& argument : jail.arguments) {
    arguments.push_back(const_cast<char*>(argument.c_str()));
  }
  arguments.push_back(nullptr);
  require(::dup3(executable, 200, O_CLOEXEC) >= 0, "dup3");
  if (socket != 3) {
    require(::dup2(socket, 3) >= 0, "dup2");
  } else {
    ::fcntl(3, F_SETFD, 0);
  }
  ::syscall(SYS_close_range, 4u, 199u, 0u);
  ::syscall(SYS_close_range, 201u, ~0u, 0u);
  ::close(0);
  ::close(1);
  char* const environment[] = {nullptr};
  ::syscall(SYS_execveat, 200, "", arguments.data(), environment, AT_EMPTY_PATH);
  giveUp("execveat");
}

bool writeFile(pid_t pid, const char* name, const std::string& text) {
  const Fd file(::open(("/proc/" + std::to_string(pid) + "/" + name).c_str(), O_WRONLY | O_CLOEXEC));
  return ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

}  // namespace

TestProcess::TestProcess(const Jail& jail) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
    return;
  }
  socket_.reset(pair[0]);
  Fd theirs(pair[1]);
  executable_.reset(jail.executable >= 0
                        ? ::fcntl(jail.executable, F_DUPFD_CLOEXEC, 0)
                        : ::open(tests::built("bin/confinement-target").c_str(), O_RDONLY | O_CLOEXEC));
  const struct {
    const char* name;
    unsigned long flag;
  } namespaces[] = {{"user", CLONE_NEWUSER}, {"mnt", CLONE_NEWNS},  {"pid", CLONE_NEWPID},      {"net", CLONE_NEWNET},
                    {"ipc", CLONE_NEWIPC},   {"uts", CLONE_NEWUTS}, {"cgroup", CLONE_NEWCGROUP}};
  unsigned long flags = SIGCHLD;
  for (const auto& one : namespaces) {
    flags |= jail.without.count(one.name) == 0 ? one.flag : 0;
  }
  const bool asRoot = ::geteuid() == 0;
  const long pid = ::syscall(SYS_clone, flags, nullptr, nullptr, nullptr, 0);
  if (pid == 0) {
    socket_.reset();
    becomeTarget(jail, asRoot, theirs.release(), executable_.get());
  }
  theirs.reset();
  pid_ = static_cast<pid_t>(pid);
  if (pid < 0) {
    return;
  }
  if ((flags & CLONE_NEWUSER) != 0) {
    const bool mapped = (asRoot || writeFile(pid_, "setgroups", "deny")) &&
                        writeFile(pid_, "uid_map", "1000 " + std::to_string(hostId()) + " 1\n") &&
                        writeFile(pid_, "gid_map", "1000 " + std::to_string(hostGroup()) + " 1\n");
    if (!mapped) {
      return;
    }
  }
  char byte = 'g';
  isReady_ = ::write(socket_.get(), &byte, 1) == 1 && ::read(socket_.get(), &byte, 1) == 1;
}

TestProcess::~TestProcess() {
  kill();
}

void TestProcess::kill() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
}

Expectation TestProcess::expectation() const {
  struct stat file {};
  ::fstat(executable_.get(), &file);
  Expectation expected;
  expected.pid = pid_;
  expected.hostUid = hostId();
  expected.hostGid = hostGroup();
  expected.executableDevice = file.st_dev;
  expected.executableInode = file.st_ino;
  expected.newNamespaces = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"};
  expected.descriptors = std::vector<int>{2, 3};
  return expected;
}

}  // namespace vmmhost::confinement
