#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>

#include "ipc/jail/spawn/limits.h"
#include "ipc/jail/spawn/spawn.h"
#include "ipc/jail/spawn/stub.h"
#include "ipc/jail/spawn/user_namespace.h"
#include "vmmhost/epolls.h"
#include "vmmhost/rings.h"
#include "vmmhost/seccomp.h"

namespace vmmhost::spawn {
namespace {

struct StageText {
  const char* what;
  const char* part;  // of kPartNames; null: not up for choice
};

StageText stageText(Stage stage) {
  switch (stage) {
    case Stage::kStart:
      return {"waiting for the host", nullptr};
    case Stage::kCgroup:
      return {"moving into its control group", nullptr};
    case Stage::kCgroupNamespace:
      return {"making a control group namespace", "cgroup-namespace"};
    case Stage::kDescriptors:
      return {"placing descriptors", nullptr};
    case Stage::kIds:
      return {"taking on the ids of the worker", nullptr};
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
    case Stage::kMountAttributes:
      return {"making a bind read-only (mount_setattr, Linux 5.12)", nullptr};
    case Stage::kMountProc:
      return {"mounting /proc with the worker's own processes only (subset=pid, Linux 5.8)", nullptr};
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
    case Stage::kNoNewPrivs:
      return {"setting no_new_privs", nullptr};
    case Stage::kParentDeath:
      return {"binding its life to the host's", nullptr};
    case Stage::kLandlock:
      return {"restricting it by Landlock", "landlock"};
    case Stage::kSeccomp:
      return {"installing the seccomp filter", nullptr};
    case Stage::kExec:
      return {"executing the worker", nullptr};
    default:
      return {"an unknown step", nullptr};
  }
}

std::string withoutHint(const char* part) {
  return part == nullptr ? std::string() : std::string("if you accept a weaker jail: --without ") + part;
}

void writeProcFile(pid_t pid, const char* file, const std::string& text) {
  char path[64];
  std::snprintf(path, sizeof(path), "/proc/%d/%s", static_cast<int>(pid), file);
  const Fd fd(::open(path, O_WRONLY | O_CLOEXEC));
  if (!fd || ::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    throw Error(ErrorCode::kConfinement, systemError(std::string("writing ") + path, errno).message());
  }
}

void addParents(Plan& plan, const std::string& path) {
  for (std::size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    const std::string parent = path.substr(0, slash);
    const auto same = [&](const Plan::Directory& directory) { return directory.path == parent; };
    if (!parent.empty() && std::none_of(plan.directories.begin(), plan.directories.end(), same)) {
      plan.directories.push_back({parent});
    }
  }
}

void addMount(Plan& plan, const std::string& source, std::string target, bool device) {
  struct stat info = {};
  if (::stat(source.c_str(), &info) != 0) {
    throw systemError("root of the worker: " + source, errno);
  }
  target.erase(0, target.find_first_not_of('/'));
  const bool isFile = !S_ISDIR(info.st_mode);
  addParents(plan, target);
  if (!isFile) {
    plan.directories.push_back({target});
  }
  plan.mounts.push_back({source, target, isFile, device});
}

// /usr, what leads into it, and what the dynamic loader reads. Nothing that holds sockets or data of others.
void addSystemRoot(Plan& plan) {
  addMount(plan, "/usr", "/usr", false);
  for (const char* name : {"bin", "sbin", "lib", "lib32", "lib64", "libx32"}) {
    const std::string path = std::string("/") + name;
    struct stat info = {};
    if (::lstat(path.c_str(), &info) != 0) {
      continue;
    }
    if (S_ISLNK(info.st_mode)) {
      char target[PATH_MAX];
      const ssize_t length = ::readlink(path.c_str(), target, sizeof(target));
      if (length > 0 && length < static_cast<ssize_t>(sizeof(target))) {
        plan.links.push_back({name, std::string(target, static_cast<std::size_t>(length))});
      }
    } else if (S_ISDIR(info.st_mode)) {
      addMount(plan, path, path, false);
    }
  }
  struct stat info = {};
  if (::stat("/etc/ld.so.cache", &info) == 0) {
    addMount(plan, "/etc/ld.so.cache", "/etc/ld.so.cache", false);
  }
}

void addDevices(Plan& plan) {
  for (const char* device : {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}) {
    addMount(plan, device, device, true);
  }
}

int lastCapability() {
  int capability = 0;
  while (capability < 63 && ::prctl(PR_CAPBSET_READ, capability + 1, 0, 0, 0) >= 0) {
    ++capability;
  }
  return capability;
}

void addProc(Plan& plan) {
  for (const char* folder : {"proc", kProcMount + 1, "proc/sys", "proc/sys/vm"}) {
    plan.directories.push_back({folder});
  }
  for (const char* name : {"self", "thread-self"}) {
    plan.links.push_back({std::string("proc/") + name, std::string("processes/") + name});
  }
  const Fd file(::open(kOvercommitFile, O_RDONLY | O_CLOEXEC));
  char value = 0;
  if (file && ::read(file.get(), &value, 1) == 1 && value >= '0' && value <= '2') {
    plan.overcommit = value;
  }
}

// As many as wanted, or as the caller may have itself, whose soft limit the stub raises. Not a number that the stub has
// something else on.
int descriptorLimit(int wanted) {
  rlimit own = {};
  if (wanted < kRulesetSlot) {
    return std::max(wanted, kMinDescriptors);
  }
  if (wanted <= kMaxDescriptors || ::getrlimit(RLIMIT_NOFILE, &own) != 0) {
    return kMaxDescriptors;
  }
  return std::max(kMaxDescriptors, static_cast<int>(std::min<rlim_t>(static_cast<rlim_t>(wanted), own.rlim_max - 1)));
}

// All within what this process itself may have, which it cannot raise for another.
void addLimits(Plan& plan, const Jail& jail) {
  const auto add = [&plan](std::uint32_t resource, std::uint64_t value) {
    rlimit own = {};
    const bool isKnown = ::getrlimit(static_cast<__rlimit_resource_t>(resource), &own) == 0;
    plan.limits.push_back({resource, isKnown ? std::min<std::uint64_t>(value, own.rlim_max) : value});
  };
  add(RLIMIT_NOFILE, static_cast<std::uint64_t>(plan.executableSlot));
  // 1, not 0: a core pattern that is a pipe is given up at 1 only. Where the caller may have no core files at all, that
  // is for the time until the worker is non-dumpable.
  add(RLIMIT_CORE, 1);
  add(RLIMIT_MEMLOCK, 0);
  add(RLIMIT_MSGQUEUE, 0);
  add(RLIMIT_SIGPENDING, kMaxPendingSignals);
  for (const auto& limit : jail.rlimits) {
    if (const auto error = tooLow(limit.resource, limit.needed, "the worker of this VM")) {
      throw *error;
    }
    const bool isSignals = limit.resource == RLIMIT_SIGPENDING;
    add(limit.resource, isSignals ? std::min(limit.value, kMaxPendingSignals) : limit.value);
  }
}

Plan makePlan(const Request& request, std::vector<std::string>& argvStorage) {
  const Jail& jail = request.jail;
  const auto has = [&](std::string_view part) { return jail.without.count(std::string(part)) == 0; };
  Plan plan;
  plan.root = ::geteuid() == 0;
  plan.system = jail.root == Jail::Root::kSystem;
  plan.binds = jail.root == Jail::Root::kBinds;
  plan.loader = plan.binds ? jail.loader : std::string();
  plan.proc = jail.proc;
  plan.dev = jail.dev;
  plan.tmp = jail.tmp;
  plan.userNamespace = has("user-namespace");
  plan.cgroupNamespace = has("cgroup-namespace");
  plan.nestedLimit = plan.userNamespace && has("nested-namespace-limit");
  plan.keyring = has("session-keyring");
  plan.landlock = has("landlock");
  if (plan.system) {
    addSystemRoot(plan);
  }
  for (const Bind& bind : jail.binds) {
    addMount(plan, bind.source, bind.target, false);
  }
  if (jail.proc) {
    addProc(plan);
  }
  if (jail.tmp) {
    plan.directories.push_back({"tmp"});
  }
  if (jail.dev) {
    addDevices(plan);
  }
  plan.executableSlot = descriptorLimit(jail.maxDescriptors);
  addLimits(plan, jail);
  if (request.rings > rings::kMaxRings || request.epolls > epolls::kMaxEpolls) {
    throw Error(ErrorCode::kInternal, "more rings or epoll instances than a worker can have");
  }
  plan.firstEpoll = rings::kFirstDescriptor + static_cast<int>(request.rings);
  const int firstFree = plan.firstEpoll + static_cast<int>(request.epolls);
  if (firstFree >= plan.executableSlot) {
    throw Error(ErrorCode::kInternal, "a worker starts with more descriptors than it may have");
  }
  for (const Passed& passed : request.descriptors) {
    const bool isTaken = passed.target >= rings::kFirstDescriptor && passed.target < firstFree;
    if (passed.target < 0 || passed.target >= std::min(200, plan.executableSlot) || isTaken ||
        request.descriptors.size() > 32) {
      throw Error(ErrorCode::kInternal, "a descriptor of the worker is out of range");
    }
    plan.descriptors.push_back({passed.source, passed.target});
  }
  seccomp::BaseParameters parameters;
  parameters.executableDescriptor = plan.executableSlot;
  parameters.rings = request.rings;
  parameters.makesMemoryFiles = jail.makesMemoryFiles;
  parameters.makesEpolls = jail.makesEpolls;
  parameters.hasProc = jail.proc;
  plan.filter = seccomp::compile(jail.seccompPolicy.policy(parameters));
  argvStorage = request.argv;
  if (request.epolls > 0) {
    argvStorage.push_back(epolls::argumentFor({plan.firstEpoll, request.epolls}));
    plan.epolls = request.epolls;
  }
  if (request.rings > 0) {
    argvStorage.emplace_back(rings::emptyArgument().data());
    plan.rings = request.rings;
    plan.ringsArgument = argvStorage.back().data();
  }
  for (std::string& argument : argvStorage) {
    plan.argv.push_back(argument.data());
  }
  plan.argv.push_back(nullptr);
  plan.executable = request.executable;
  plan.readable = jail.readable;
  plan.cgroupTasks = jail.cgroupTasks;
  plan.lastCapability = lastCapability();
  plan.uid = plan.userNamespace ? kInsideUid : jail.uid;
  plan.gid = plan.userNamespace ? kInsideGid : jail.gid;
  if (plan.landlock) {
    const int abi = landlockAbi();
    if (abi == 0) {
      throw Error(ErrorCode::kConfinement, "the kernel offers no Landlock", withoutHint("landlock"));
    }
    fillLandlock(plan, abi);
  }
  if (!plan.userNamespace && !plan.root) {
    throw Error(ErrorCode::kConfinement, "a worker without a user namespace can be started by root only",
                "leave out --without user-namespace, or run as root");
  }
  if (jail.uid == 0) {
    throw Error(ErrorCode::kInternal, "a worker must not run under uid 0");
  }
  return plan;
}

// The stub keeps what it places at kFirstSpare and above meanwhile, and the executable at a number behind all that the
// worker has.
void requireDescriptorNumbers(const Request& request) {
  const std::size_t needed = kFirstSpare + 4 + request.descriptors.size();
  if (const auto error = tooLow(RLIMIT_NOFILE, needed, "starting a worker")) {
    throw *error;
  }
  const std::uint64_t neededByIt = static_cast<std::uint64_t>(request.jail.neededDescriptors) + 1;
  if (const auto error = tooLow(RLIMIT_NOFILE, neededByIt, "the worker of this VM")) {
    throw *error;
  }
}

}  // namespace

std::vector<JailMount> expectedMounts(bool system, bool proc, bool dev, bool tmp) {
  Plan plan;
  if (system) {
    addSystemRoot(plan);
  }
  if (dev) {
    addDevices(plan);
  }
  std::vector<JailMount> mounts;
  for (const Plan::Mount& mount : plan.mounts) {
    mounts.push_back({"/" + mount.target, true});
  }
  if (proc) {
    mounts.push_back({kProcMount, false});
  }
  if (tmp) {
    mounts.push_back({"/tmp", false});
  }
  return mounts;
}

Child begin(const Request& request) {
  requireDescriptorNumbers(request);
  std::vector<std::string> argvStorage;
  Plan plan = makePlan(request, argvStorage);
  const auto has = [&](const char* part) { return request.jail.without.count(part) == 0; };

  int status[2];
  int go[2];
  if (::pipe2(status, O_CLOEXEC) != 0) {
    throw systemError("making a pipe", errno);
  }
  Child child;
  child.status_.reset(status[0]);
  Fd statusWrite(status[1]);
  ::fcntl(child.status_.get(), F_SETFL, O_NONBLOCK);
  if (::pipe2(go, O_CLOEXEC) != 0) {
    throw systemError("making a pipe", errno);
  }
  Fd goRead(go[0]);
  Fd goWrite(go[1]);
  plan.status = statusWrite.get();
  plan.go = goRead.get();
  const Fd self(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)));
  plan.parent = self.get();

  clone_args arguments = {};
  int pidfd = -1;
  arguments.flags = CLONE_PIDFD | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS |
                    (plan.userNamespace ? CLONE_NEWUSER : 0) | (has("net-namespace") ? CLONE_NEWNET : 0);
  if (request.jail.cgroupFolder >= 0) {
    arguments.flags |= CLONE_INTO_CGROUP;
    arguments.cgroup = static_cast<std::uint64_t>(request.jail.cgroupFolder);
  }
  arguments.pidfd = reinterpret_cast<std::uint64_t>(&pidfd);
  arguments.exit_signal = SIGCHLD;

  // No handler of this process may run in the child before it has reset them.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const long pid = ::syscall(SYS_clone3, &arguments, sizeof(arguments));
  if (pid == 0) {
    // By these ends, too, it knows whether the parent lives.
    ::close(go[1]);
    ::close(status[0]);
    runStub(plan);
  }
  const int cloneError = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) {
    throw namespaceError(cloneError);
  }
  child.pid_ = static_cast<pid_t>(pid);
  child.pidfd_.reset(pidfd);

  if (plan.userNamespace) {
    if (!plan.root) {
      writeProcFile(child.pid_, "setgroups", "deny");
    }
    writeProcFile(child.pid_, "uid_map", std::to_string(kInsideUid) + " " + std::to_string(request.jail.uid) + " 1\n");
    writeProcFile(child.pid_, "gid_map", std::to_string(kInsideGid) + " " + std::to_string(request.jail.gid) + " 1\n");
  }
  if (request.beforeStart) {
    request.beforeStart(child.pid_);
  }
  if (::write(goWrite.get(), "g", 1) != 1) {
    throw systemError("starting the worker", errno);
  }
  return child;
}

Child::Child(Child&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      pidfd_(std::move(other.pidfd_)),
      status_(std::move(other.status_)),
      reaped_(std::exchange(other.reaped_, true)),
      exit_(other.exit_) {
}

Child& Child::operator=(Child&& other) noexcept {
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
    // Until it has ended, waitid() takes the stops of a process that a thread of this program traces.
    pollfd ended = {pidfd_.get(), POLLIN, 0};
    while (::poll(&ended, 1, -1) != 1) {
    }
    siginfo_t info;
    while (::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED) != 0 && errno == EINTR) {
    }
  }
}

std::optional<bool> Child::executed() {
  Report report;
  const ssize_t got = ::read(status_.get(), &report, sizeof(report));
  if (got < 0) {
    if (errno == EAGAIN || errno == EINTR) {
      return std::nullopt;
    }
    throw systemError("reading the state of the worker's jail", errno);
  }
  if (got == 0) {
    return true;
  }
  if (got != static_cast<ssize_t>(sizeof(report)) || report.stage >= Stage::kCount) {
    throw Error(ErrorCode::kInternal, "the worker's jail reported nonsense");
  }
  if (report.stage == Stage::kCgroupNamespace && report.errnoValue == ENOSPC) {
    throw namespaceError(report.errnoValue);  // which limit it is, as for the others
  }
  const StageText text = stageText(report.stage);
  const std::string message = std::string("the worker's jail could not be made: ") +
                              systemError(text.what, report.errnoValue).message() + " (step " +
                              std::to_string(report.index) + ")";
  if (report.stage == Stage::kExec) {
    throw Error(ErrorCode::kConfinement, message,
                "the worker's executable must be readable and executable by everybody (mode 0755)");
  }
  throw Error(ErrorCode::kConfinement, message, withoutHint(text.part));
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
