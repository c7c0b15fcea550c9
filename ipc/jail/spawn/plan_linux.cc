#include <fcntl.h>
#include <linux/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ipc/jail/spawn/limits.h"
#include "ipc/jail/spawn/plan.h"
#include "vmmhost/epolls.h"
#include "vmmhost/rings.h"
#include "vmmhost/seccomp.h"

namespace vmmhost::spawn {
namespace {

void addParents(Plan& plan, const std::string& path) {
  for (std::size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    const std::string parent = path.substr(0, slash);
    const auto same = [&](const Plan::Directory& directory) { return directory.path == parent; };
    if (!parent.empty() && std::none_of(plan.directories.begin(), plan.directories.end(), same)) {
      plan.directories.push_back({parent});
    }
  }
}

// What `source` is; throws if it is not there.
bool isFolder(const std::string& process, const std::string& source) {
  struct stat info = {};
  if (::stat(source.c_str(), &info) != 0) {
    throw systemError("root of the " + process + ": " + source, errno);
  }
  return S_ISDIR(info.st_mode);
}

Plan::Mount& addMount(Plan& plan, const std::string& source, std::string target, bool isFile) {
  target.erase(0, target.find_first_not_of('/'));
  addParents(plan, target);
  if (!isFile) {
    plan.directories.push_back({target});
  }
  Plan::Mount& mount = plan.mounts.emplace_back();
  mount.source = source;
  mount.target = std::move(target);
  mount.isFile = isFile;
  return mount;
}

void addSystemMount(Plan& plan, const std::string& process, const std::string& path) {
  addMount(plan, path, path, !isFolder(process, path));
}

void addBind(Plan& plan, const std::string& process, const Bind& bind) {
  FileIdentity identity;
  const bool isChecked = bind.descriptor >= 0;
  if (isChecked) {
    if (const int error = identify(bind.descriptor, identity)) {
      throw systemError("root of the " + process + ": " + bind.source, error);
    }
  }
  const bool isFile = isChecked ? identity.type != S_IFDIR : !isFolder(process, bind.source);
  Plan::Mount& mount = addMount(plan, bind.source, bind.target, isFile);
  mount.readOnly = bind.readOnly;
  mount.executable = bind.executable;
  mount.isChecked = isChecked;
  mount.identity = identity;
}

// /usr, what leads into it, and what the dynamic loader reads. Nothing that holds sockets or data of others.
void addSystemRoot(Plan& plan, const std::string& process) {
  addSystemMount(plan, process, "/usr");
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
      addSystemMount(plan, process, path);
    }
  }
  struct stat info = {};
  if (::stat("/etc/ld.so.cache", &info) == 0) {
    addSystemMount(plan, process, "/etc/ld.so.cache");
  }
}

void addDevices(Plan& plan, const std::string& process) {
  for (const char* device : {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}) {
    addMount(plan, device, device, !isFolder(process, device)).device = true;
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
// something else on, nor, for the executable and the programs behind it, one that they have on the way there.
int descriptorLimit(int wanted, int programs) {
  rlimit own = {};
  if (wanted + programs < kRulesetSlot) {
    return std::max(wanted, kMinDescriptors);
  }
  if (wanted <= kMaxDescriptors || ::getrlimit(RLIMIT_NOFILE, &own) != 0) {
    return kMaxDescriptors;
  }
  const auto most = static_cast<int>(std::min<rlim_t>(own.rlim_max, 1 << 30)) - 1 - programs;
  const int limit = std::max(kMaxDescriptors, std::min(wanted, most));
  return programs > 0 && limit < kFirstSpare ? kMaxDescriptors : limit;
}

// Who takes what a limit does not give. A worker is always that of the VM that is being started.
std::string takerOf(const Request& request) {
  return "the " + request.name + (request.name == "worker" ? " of this VM" : "");
}

// All within what this process itself may have, which it cannot raise for another.
void addLimits(Plan& plan, const Request& request) {
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
  for (const auto& limit : request.jail.rlimits) {
    if (const auto error = tooLow(limit.resource, limit.needed, takerOf(request))) {
      throw *error;
    }
    const bool isSignals = limit.resource == RLIMIT_SIGPENDING;
    add(limit.resource, isSignals ? std::min(limit.value, kMaxPendingSignals) : limit.value);
  }
}

// The stub keeps what it places at kFirstSpare and above meanwhile, and the executable at a number behind all that the
// worker has.
void requireDescriptorNumbers(const Request& request) {
  const std::size_t needed = kFirstSpare + 4 + request.descriptors.size() + request.programs.size();
  if (const auto error = tooLow(RLIMIT_NOFILE, needed, "starting a " + request.name)) {
    throw *error;
  }
  const std::uint64_t neededByIt =
      static_cast<std::uint64_t>(request.jail.neededDescriptors) + 1 + request.programs.size();
  if (const auto error = tooLow(RLIMIT_NOFILE, neededByIt, takerOf(request))) {
    throw *error;
  }
}

}  // namespace

std::string withoutHint(const char* part) {
  return part == nullptr ? std::string() : std::string("if you accept a weaker jail: --without ") + part;
}

Plan makePlan(const Request& request, std::vector<std::string>& argvStorage) {
  requireDescriptorNumbers(request);
  validate(request);
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
    addSystemRoot(plan, request.name);
  }
  for (const Bind& bind : jail.binds) {
    addBind(plan, request.name, bind);
  }
  if (jail.proc) {
    addProc(plan);
  }
  if (jail.tmp) {
    plan.directories.push_back({"tmp"});
  }
  if (jail.dev) {
    addDevices(plan, request.name);
  }
  plan.newNetwork = jail.network.how == Namespace::How::kNew && has("net-namespace");
  plan.joinNetwork = jail.network.how == Namespace::How::kJoined ? jail.network.descriptor : -1;
  plan.joinUser = jail.user.how == Namespace::How::kJoined ? jail.user.descriptor : -1;
  for (const int capability : jail.setupCapabilities) {
    plan.setupCapabilities |= std::uint64_t{1} << capability;
  }
  plan.programs = request.programs;
  plan.executableSlot = descriptorLimit(jail.maxDescriptors, static_cast<int>(plan.programs.size()));
  addLimits(plan, request);
  if (request.rings > rings::kMaxRings || request.epolls > epolls::kMaxEpolls) {
    throw Error(ErrorCode::kInternal, "more rings or epoll instances than a " + request.name + " can have");
  }
  plan.firstEpoll = rings::kFirstDescriptor + static_cast<int>(request.rings);
  const int firstFree = plan.firstEpoll + static_cast<int>(request.epolls);
  if (firstFree >= plan.executableSlot) {
    throw Error(ErrorCode::kInternal, "a " + request.name + " starts with more descriptors than it may have");
  }
  for (const Passed& passed : request.descriptors) {
    const bool isTaken = passed.target >= rings::kFirstDescriptor && passed.target < firstFree;
    if (passed.target < 0 || passed.target >= std::min(200, plan.executableSlot) || isTaken ||
        request.descriptors.size() > 32) {
      throw Error(ErrorCode::kInternal, "a descriptor of the " + request.name + " is out of range");
    }
    plan.descriptors.push_back({passed.source, passed.target});
  }
  seccomp::BaseParameters parameters;
  parameters.executableDescriptor = plan.executableSlot;
  parameters.rings = request.rings;
  parameters.makesMemoryFiles = jail.makesMemoryFiles;
  parameters.makesEpolls = jail.makesEpolls;
  parameters.hasProc = jail.proc;
  seccomp::Policy policy = jail.seccompPolicy.policy(parameters);
  if (plan.setupCapabilities != 0) {
    seccomp::addSetupStage(policy, plan.setupCapabilities);
  }
  if (!plan.programs.empty()) {
    seccomp::addProgramsByDescriptor(policy, plan.executableSlot + 1, static_cast<unsigned>(plan.programs.size()));
  }
  plan.filter = seccomp::compile(policy);
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
    throw Error(ErrorCode::kConfinement, "a " + request.name + " without a user namespace can be started by root only",
                "leave out --without user-namespace, or run as root");
  }
  if (jail.uid == 0) {
    throw Error(ErrorCode::kInternal, "a " + request.name + " must not run under uid 0");
  }
  return plan;
}

namespace {

void expectNamespaces(const Jail& jail, confinement::Expectation& expected) {
  for (const char* name : {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"}) {
    const Namespace::How how = std::string_view(name) == "net" ? jail.network.how : Namespace::How::kNew;
    if (how == Namespace::How::kJoined) {
      expected.joinedNamespaces.emplace_back(name, confinement::namespaceOf(jail.network.descriptor));
    } else if (how == Namespace::How::kKept) {
      expected.keptNamespaces.emplace_back(name);
    } else if (jail.without.count(std::string(name) + "-namespace") == 0) {
      expected.newNamespaces.emplace_back(name);
    }
  }
  if (jail.user.how == Namespace::How::kJoined) {
    expected.userNamespaceParent = confinement::namespaceOf(jail.user.descriptor);
  }
}

void expectMounts(const Plan& plan, confinement::Expectation& expected) {
  for (const Plan::Mount& mount : plan.mounts) {
    const std::uint64_t attributes = mount.attributes();
    confinement::ExpectedMount& wanted = expected.mounts.emplace_back();
    wanted.target = "/" + mount.target;
    wanted.readOnly = mount.readOnly;
    wanted.writable = !mount.readOnly;
    wanted.noSetuid = (attributes & MOUNT_ATTR_NOSUID) != 0;
    wanted.noDevices = (attributes & MOUNT_ATTR_NODEV) != 0;
    wanted.noExecution = (attributes & MOUNT_ATTR_NOEXEC) != 0;
  }
  const auto add = [&expected](const char* target) {
    confinement::ExpectedMount& wanted = expected.mounts.emplace_back();
    wanted.target = target;
    wanted.readOnly = false;
    wanted.noSetuid = wanted.noDevices = wanted.noExecution = true;
  };
  if (plan.proc) {
    add(kProcMount);
  }
  if (plan.tmp) {
    add("/tmp");
  }
}

}  // namespace

confinement::Expectation expectationOf(const Request& request, const Plan& plan) {
  confinement::Expectation expected;
  struct stat info = {};
  expected.hostUid = request.jail.uid;
  expected.hostGid = request.jail.gid;
  if (::fstat(request.executable, &info) == 0) {
    expected.executableDevice = info.st_dev;
    expected.executableInode = info.st_ino;
  }
  expectNamespaces(request.jail, expected);
  expectMounts(plan, expected);
  expected.minimumFilters = plan.setupCapabilities == 0 ? 1 : 2;
  expected.descriptors.emplace();
  for (const Passed& passed : request.descriptors) {
    expected.descriptors->push_back(passed.target);
  }
  int number = plan.executableSlot;
  for (const int program : plan.programs) {
    expected.descriptors->push_back(++number);
    if (::fstat(program, &info) == 0) {
      expected.programs.push_back({info.st_dev, info.st_ino});
    }
  }
  expected.eventDescriptorsAllowed = true;
  expected.firstRing = rings::kFirstDescriptor;
  expected.rings = request.rings;
  expected.includeDescendants = true;
  return expected;
}

}  // namespace vmmhost::spawn
