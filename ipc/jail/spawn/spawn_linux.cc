#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "ipc/jail/spawn/plan.h"
#include "ipc/jail/spawn/spawn.h"
#include "ipc/jail/spawn/stub.h"
#include "ipc/jail/spawn/user_namespace.h"

namespace vmmhost::spawn {
namespace {

struct StageText {
  const char* what;
  const char* part;  // of kPartNames; null: not up for choice
};

// "{}" stands for the name of the process.
StageText stageText(Stage stage) {
  switch (stage) {
    case Stage::kStart:
      return {"waiting for the host", nullptr};
    case Stage::kJoinUser:
      return {"entering the user namespace that owns the network of the {}", nullptr};
    case Stage::kJoinNetwork:
      return {"joining the network namespace of the {}", nullptr};
    case Stage::kJoinClone:
      return {"making the {} in the network namespace that it joins", nullptr};
    case Stage::kJoinIds:
      return {"mapping the ids of the {} into the user namespace that it joins", nullptr};
    case Stage::kCgroup:
      return {"moving into its control group", nullptr};
    case Stage::kCgroupNamespace:
      return {"making a control group namespace", "cgroup-namespace"};
    case Stage::kDescriptors:
      return {"placing descriptors", nullptr};
    case Stage::kIds:
      return {"taking on the ids of the {}", nullptr};
    case Stage::kSession:
      return {"making a session", nullptr};
    case Stage::kKeyring:
      return {"making a session keyring", "session-keyring"};
    case Stage::kNestedLimit:
      return {"forbidding nested user namespaces (/proc/sys/user/max_user_namespaces)", "nested-namespace-limit"};
    case Stage::kHostname:
      return {"setting the host name of the UTS namespace", nullptr};
    case Stage::kMountPrivate:
      return {"making mounts private", nullptr};
    case Stage::kMountRoot:
      return {"mounting an empty root", nullptr};
    case Stage::kMountBind:
      return {"binding into the root", nullptr};
    case Stage::kBindOpen:
      return {"opening what is to be bound into the root", nullptr};
    case Stage::kBindChanged:
      return {"what is to be bound into the root is another file by now than the one that was checked", nullptr};
    case Stage::kBindAttach:
      return {"binding what was checked into the root (open_tree, mount_setattr, Linux 5.12)", nullptr};
    case Stage::kMountAttributes:
      return {"making a bind read-only (mount_setattr, Linux 5.12)", nullptr};
    case Stage::kMountProc:
      return {"mounting /proc with the {}'s own processes only (subset=pid, Linux 5.8)", nullptr};
    case Stage::kMountDev:
      return {"binding a device", nullptr};
    case Stage::kMountTmp:
      return {"mounting a private /tmp", nullptr};
    case Stage::kPivot:
      return {"changing the root", nullptr};
    case Stage::kReadOnly:
      return {"making the root read-only", nullptr};
    case Stage::kEpolls:
      return {"making instances of epoll", nullptr};
    case Stage::kLimits:
      return {"setting resource limits", nullptr};
    case Stage::kSignals:
      return {"resetting signals", nullptr};
    case Stage::kCapabilities:
      return {"dropping capabilities", nullptr};
    case Stage::kSetupCapabilities:
      return {"keeping capabilities for the set-up of the {}", nullptr};
    case Stage::kNoNewPrivs:
      return {"setting no_new_privs", nullptr};
    case Stage::kParentDeath:
      return {"binding its life to the host's", nullptr};
    case Stage::kLandlock:
      return {"restricting it by Landlock", "landlock"};
    case Stage::kSeccomp:
      return {"installing the seccomp filter", nullptr};
    case Stage::kExec:
      return {"executing the {}", nullptr};
    default:
      return {"an unknown step", nullptr};
  }
}

std::string named(std::string text, const std::string& name) {
  const std::size_t place = text.find("{}");
  return place == std::string::npos ? text : text.replace(place, 2, name);
}

// What went wrong, of the jail of a process of this name.
Error reportError(const std::string& name, const Report& report, const std::vector<std::string>& binds) {
  if (report.stage == Stage::kCgroupNamespace && report.errnoValue == ENOSPC) {
    return namespaceError(name, report.errnoValue);  // which limit it is, as for the others
  }
  const StageText text = stageText(report.stage);
  std::string what = named(text.what, name);
  const bool isOfABind =
      report.stage == Stage::kBindOpen || report.stage == Stage::kBindChanged || report.stage == Stage::kBindAttach;
  if (isOfABind && report.index < binds.size()) {
    what = binds[report.index] + ": " + what;
  }
  const std::string message = "the " + name +
                              "'s jail could not be made: " + systemError(what, report.errnoValue).message() +
                              " (step " + std::to_string(report.index) + ")";
  if (report.stage == Stage::kExec) {
    return Error(ErrorCode::kConfinement, message,
                 "the " + name + "'s executable must be readable and executable by everybody (mode 0755)");
  }
  if (report.stage == Stage::kBindChanged) {
    return Error(ErrorCode::kConfinement, message, "start it again once nobody replaces the file any more");
  }
  return Error(ErrorCode::kConfinement, message, withoutHint(text.part));
}

void writeProcFile(pid_t pid, const char* file, const std::string& text) {
  char path[64];
  std::snprintf(path, sizeof(path), "/proc/%d/%s", static_cast<int>(pid), file);
  const Fd fd(::open(path, O_WRONLY | O_CLOEXEC));
  if (!fd || ::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    throw Error(ErrorCode::kConfinement, systemError(std::string("writing ") + path, errno).message());
  }
}

struct Pipe {
  Pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) {
      throw systemError("making a pipe", errno);
    }
    read.reset(ends[0]);
    write.reset(ends[1]);
  }
  Fd read;
  Fd write;
};

struct Process {
  pid_t pid = -1;
  int pidfd = -1;
  int errnoValue = 0;
};

// Carries `body`, which does not return, out in a new process.
template <typename Body>
Process cloneProcess(clone_args arguments, const Body& body) {
  Process made;
  arguments.flags |= CLONE_PIDFD;
  arguments.pidfd = reinterpret_cast<std::uint64_t>(&made.pidfd);
  arguments.exit_signal = SIGCHLD;
  // No handler of this process may run in the child before it has reset them.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const long pid = ::syscall(SYS_clone3, &arguments, sizeof(arguments));
  if (pid == 0) {
    body();
  }
  made.errnoValue = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  made.pid = static_cast<pid_t>(pid);
  return made;
}

void waitForEnd(const Fd& pidfd) {
  // Until it has ended, waitid() takes the stops of a process that a thread of this program traces.
  pollfd ended = {pidfd.get(), POLLIN, 0};
  while (::poll(&ended, 1, -1) != 1) {
  }
  siginfo_t info;
  while (::waitid(P_PIDFD, static_cast<id_t>(pidfd.get()), &info, WEXITED) != 0 && errno == EINTR) {
  }
}

// Has the stub started by way of a process that joins namespaces first, and waits for that one's end: it makes a
// handful of system calls.
template <typename LeaveParent>
JoinReport join(const std::string& name, const Plan& plan, const clone_args& stub, const LeaveParent& leaveParent) {
  Pipe answer;
  const Process joiner = cloneProcess(clone_args{}, [&]() {
    leaveParent();
    ::close(answer.read.get());
    runJoiner(plan, stub, answer.write.get());
  });
  if (joiner.pid < 0) {
    throw systemError("starting the " + name, joiner.errnoValue);
  }
  const Fd pidfd(joiner.pidfd);
  pollfd ends[] = {{answer.read.get(), POLLIN, 0}, {pidfd.get(), POLLIN, 0}};
  while (::poll(ends, 2, -1) < 0 && errno == EINTR) {
  }
  JoinReport report;
  // Written at once, or never: then it was killed, and what it may have started ends by itself, since it is never told
  // to go on. Not what poll() says of it, which may have looked here before it was written, and there after the end.
  ::fcntl(answer.read.get(), F_SETFL, O_NONBLOCK);
  const bool isTold = ::read(answer.read.get(), &report, sizeof(report)) == static_cast<ssize_t>(sizeof(report));
  ::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);
  waitForEnd(pidfd);
  if (!isTold) {
    throw Error(ErrorCode::kConfinement,
                "the process that joins namespaces for the " + name + " was ended before it had done so");
  }
  return report;
}

// Of a child that another process made for this one. Not reaped yet, so that its number is not another's.
Fd pidfdOfChild(const std::string& name, const JoinReport& joined) {
  if (joined.pid < 0) {
    if (joined.report.stage == Stage::kJoinClone) {
      throw namespaceError(name, joined.report.errnoValue);
    }
    throw reportError(name, joined.report, {});
  }
  Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, joined.pid, 0)));
  siginfo_t info = {};
  if (!pidfd || ::waitid(P_PIDFD, static_cast<id_t>(pidfd.get()), &info, WEXITED | WNOHANG | WNOWAIT) != 0) {
    throw systemError("starting the " + name, errno);
  }
  return pidfd;
}

}  // namespace

Child begin(const Request& request) {
  std::vector<std::string> argvStorage;
  Plan plan = makePlan(request, argvStorage);
  Child child;
  child.name_ = request.name;
  child.expectation_ = expectationOf(request, plan);
  for (const Plan::Mount& mount : plan.mounts) {
    child.binds_.push_back(mount.source);
  }

  Pipe status;
  Pipe go;
  ::fcntl(status.read.get(), F_SETFL, O_NONBLOCK);
  plan.status = status.write.get();
  plan.go = go.read.get();
  const Fd self(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)));
  plan.parent = self.get();

  clone_args arguments = {};
  arguments.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS |
                    (plan.userNamespace ? CLONE_NEWUSER : 0) | (plan.newNetwork ? CLONE_NEWNET : 0);
  if (request.jail.cgroupFolder >= 0) {
    arguments.flags |= CLONE_INTO_CGROUP;
    arguments.cgroup = static_cast<std::uint64_t>(request.jail.cgroupFolder);
  }
  // By these ends, too, what is made knows whether the parent lives.
  const auto leaveParent = [&status, &go]() {
    ::close(go.write.get());
    ::close(status.read.get());
  };
  JoinReport joined;
  if (plan.joinNetwork < 0) {
    const Process stub = cloneProcess(arguments, [&]() {
      leaveParent();
      runStub(plan);
    });
    if (stub.pid < 0) {
      throw namespaceError(request.name, stub.errnoValue);
    }
    child.pid_ = stub.pid;
    child.pidfd_.reset(stub.pidfd);
  } else {
    joined = join(request.name, plan, arguments, leaveParent);
    child.pid_ = joined.pid;
    child.pidfd_ = pidfdOfChild(request.name, joined);
  }
  child.status_ = std::move(status.read);
  child.expectation_.pid = child.pid_;
  if (joined.report.stage != Stage::kNone) {
    throw reportError(request.name, joined.report, child.binds_);
  }

  if (plan.userNamespace && plan.joinUser < 0) {
    if (!plan.root) {
      writeProcFile(child.pid_, "setgroups", "deny");
    }
    writeProcFile(child.pid_, "uid_map", std::to_string(kInsideUid) + " " + std::to_string(request.jail.uid) + " 1\n");
    writeProcFile(child.pid_, "gid_map", std::to_string(kInsideGid) + " " + std::to_string(request.jail.gid) + " 1\n");
  }
  if (request.beforeStart) {
    request.beforeStart(child.pid_);
  }
  if (::write(go.write.get(), "g", 1) != 1) {
    throw systemError("starting the " + request.name, errno);
  }
  return child;
}

Child::Child(Child&& other) noexcept
    : name_(std::move(other.name_)),
      binds_(std::move(other.binds_)),
      expectation_(std::move(other.expectation_)),
      pid_(std::exchange(other.pid_, -1)),
      pidfd_(std::move(other.pidfd_)),
      status_(std::move(other.status_)),
      reaped_(std::exchange(other.reaped_, true)),
      exit_(other.exit_) {
}

Child& Child::operator=(Child&& other) noexcept {
  std::swap(name_, other.name_);
  std::swap(binds_, other.binds_);
  std::swap(expectation_, other.expectation_);
  std::swap(pid_, other.pid_);
  std::swap(pidfd_, other.pidfd_);
  std::swap(status_, other.status_);
  std::swap(reaped_, other.reaped_);
  std::swap(exit_, other.exit_);
  return *this;
}

Child::~Child() {
  if (pidfd_ && !reaped_) {
    kill();
    waitForEnd(pidfd_);
  }
}

std::optional<bool> Child::executed() {
  Report report;
  const ssize_t got = ::read(status_.get(), &report, sizeof(report));
  if (got < 0) {
    if (errno == EAGAIN || errno == EINTR) {
      return std::nullopt;
    }
    throw systemError("reading the state of the " + name_ + "'s jail", errno);
  }
  if (got == 0) {
    return true;
  }
  if (got != static_cast<ssize_t>(sizeof(report)) || report.stage >= Stage::kCount) {
    throw Error(ErrorCode::kInternal, "the " + name_ + "'s jail reported nonsense");
  }
  throw reportError(name_, report, binds_);
}

std::optional<Child::Exit> Child::reap() {
  if (reaped_) {
    return exit_;
  }
  // Before it has ended, waitid() would take the stops of a process that a thread of this program traces.
  pollfd ended = {pidfd_.get(), POLLIN, 0};
  if (::poll(&ended, 1, 0) != 1) {
    return std::nullopt;
  }
  siginfo_t info = {};
  if (::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED | WNOHANG) != 0) {
    // ECHILD: the embedder ignores SIGCHLD, so the kernel kept no exit status.
    if (errno == ECHILD) {
      reaped_ = true;
      exit_ = Exit{Exit::Kind::kUnknown, 0};
    }
    return exit_;
  }
  if (info.si_pid == 0) {
    return std::nullopt;
  }
  reaped_ = true;
  exit_ =
      info.si_code == CLD_EXITED ? Exit{Exit::Kind::kCode, info.si_status} : Exit{Exit::Kind::kSignal, info.si_status};
  return exit_;
}

void Child::kill() noexcept {
  if (pidfd_ && !reaped_) {
    ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
  }
}

}  // namespace vmmhost::spawn
