#include "host/plugin/launch_plan.h"

#include <sys/resource.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <iterator>

#include "host/base/text.h"
#include "host/plugin/host_api.h"
#include "host/plugin/trusted_file.h"
#include "ipc/jail/spawn/spawn.h"
#include "vmmhost/epolls.h"
#include "vmmhost/rings.h"
#include "vmmhost/seccomp.h"

namespace vmmhost::plugin {
namespace {

constexpr std::uint32_t kMaxArguments = 64;
constexpr std::size_t kMaxArgumentBytes = 4096;
constexpr std::uint32_t kMaxBinds = 32;
constexpr std::uint32_t kMaxDevices = 16;
constexpr std::uint32_t kMaxRlimits = 16;
constexpr std::uint32_t kMaxProcesses = 65536;
constexpr std::uint64_t kMaxOverheadBytes = std::uint64_t{64} << 30;
constexpr std::uint64_t kMaxTimeoutMs = 600'000;
constexpr std::uint32_t kMinorOfNewPolicies = 2;
constexpr std::uint32_t kUsualDescriptors = 256;
constexpr std::uint32_t kFewestDescriptors = spawn::kMinDescriptors;
constexpr std::uint32_t kMostDescriptors = 4096;
constexpr std::uint32_t kFurtherDescriptors = 16;  // besides rings and epoll instances, for an event loop and its files

[[noreturn]] void fault(const std::string& what) {
  throw Error(ErrorCode::kInternal, "its launch plan " + what, "report this to its maker");
}

std::string copyText(const char* text, std::size_t maxBytes, const std::string& what) {
  if (text == nullptr) {
    fault("has no " + what);
  }
  const std::size_t length = ::strnlen(text, maxBytes + 1);
  if (length > maxBytes) {
    fault("has a " + what + " of more than " + std::to_string(maxBytes) + " bytes");
  }
  return std::string(text, length);
}

template <typename T>
void checkCount(const T* items, std::uint32_t count, std::uint32_t max, const char* what) {
  if (count > max) {
    fault("has " + std::to_string(count) + ' ' + what + ", more than " + std::to_string(max));
  }
  if (count > 0 && items == nullptr) {
    fault("counts " + std::to_string(count) + ' ' + what + " but has none");
  }
}

// Absolute, and each component a name: nothing that leads elsewhere than it says.
std::string copyPath(const char* text, const std::string& what) {
  std::string path = copyText(text, PATH_MAX - 1, what);
  bool good = path.size() > 1 && path[0] == '/' && path.back() != '/';
  for (std::size_t begin = 1; good && begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = std::string_view(path).substr(begin, end - begin);
    good = !part.empty() && part != "." && part != "..";
    begin = end + 1;
  }
  if (!good) {
    fault("has a " + what + " that is not a plain absolute path: " + inQuotes(path));
  }
  return path;
}

bool isBelow(std::string_view path, std::string_view folder) {
  return path.size() > folder.size() && path.substr(0, folder.size()) == folder && path[folder.size()] == '/';
}

bool isAtOrBelow(std::string_view path, std::string_view folder) {
  return path == folder || isBelow(path, folder);
}

std::string workerPath(const char* text, const std::string& folder) {
  const std::string given = copyText(text, PATH_MAX - 1, "worker");
  if (given.empty() || given.back() == '/') {
    fault("has a worker that is no file: " + inQuotes(given));
  }
  const std::string full = given[0] == '/' ? given : folder + '/' + given;
  std::vector<std::string_view> parts;
  for (std::size_t begin = 0; begin <= full.size();) {
    const std::size_t end = std::min(full.find('/', begin), full.size());
    const std::string_view part = std::string_view(full).substr(begin, end - begin);
    begin = end + 1;
    if (part.empty() || part == ".") {
      continue;
    }
    if (part != "..") {
      parts.push_back(part);
    } else if (parts.empty()) {
      fault("has a worker above the root: " + inQuotes(given));
    } else {
      parts.pop_back();
    }
  }
  std::string path;
  for (const std::string_view part : parts) {
    path += '/';
    path += part;
  }
  if (path.empty()) {
    fault("has a worker that is no file: " + inQuotes(given));
  }
  return path;
}

void copyBinds(const vmmhost_launch_plan& from, LaunchPlan& to) {
  checkCount(from.binds, from.bind_count, kMaxBinds, "binds");
  if (from.bind_count > 0 && to.root == LaunchPlan::Root::kEmpty) {
    fault("has binds, which an empty root has no place for");
  }
  for (std::uint32_t index = 0; index < from.bind_count; ++index) {
    LaunchPlan::Bind bind{copyPath(from.binds[index].source, "bind source"),
                          copyPath(from.binds[index].target, "bind target")};
    const auto contains = [](std::string_view path) {
      return [path](std::string_view folder) { return isAtOrBelow(path, folder); };
    };
    constexpr std::string_view kSources[] = {"/usr", "/lib", "/lib64", "/opt"};
    if (std::none_of(std::begin(kSources), std::end(kSources), contains(bind.source))) {
      fault("binds " + inQuotes(bind.source) + ", which is not below /usr, /lib, /lib64 or /opt");
    }
    constexpr std::string_view kReserved[] = {"/proc", "/dev", "/tmp", "/sys"};
    if (std::any_of(std::begin(kReserved), std::end(kReserved), contains(bind.target))) {
      fault("binds to " + inQuotes(bind.target) + ", a place that the host fills itself");
    }
    for (const LaunchPlan::Bind& other : to.binds) {
      if (other.target == bind.target) {
        fault("binds to " + inQuotes(bind.target) + " twice");
      }
    }
    to.binds.push_back(std::move(bind));
  }
}

void copyDevices(const vmmhost_launch_plan& from, LaunchPlan& to) {
  checkCount(from.devices, from.device_count, kMaxDevices, "devices");
  for (std::uint32_t index = 0; index < from.device_count; ++index) {
    LaunchPlan::Device device{copyText(from.devices[index].name, 32, "device name"),
                              copyPath(from.devices[index].path, "device path"), from.devices[index].optional != 0};
    if (!isBackendName(device.name)) {
      fault("has a device name that is not made of [a-z0-9-]: " + inQuotes(device.name));
    }
    if (!isBelow(device.path, "/dev")) {
      fault("has a device that is not below /dev: " + inQuotes(device.path));
    }
    for (const LaunchPlan::Device& other : to.devices) {
      if (other.name == device.name) {
        fault("has two devices called " + inQuotes(device.name));
      }
    }
    to.devices.push_back(std::move(device));
  }
}

void copyRlimits(const vmmhost_launch_plan& from, LaunchPlan& to) {
  checkCount(from.rlimits, from.rlimit_count, kMaxRlimits, "resource limits");
  for (std::uint32_t index = 0; index < from.rlimit_count; ++index) {
    const vmmhost_rlimit& limit = from.rlimits[index];
    if (limit.resource >= RLIM_NLIMITS) {
      fault("limits resource " + std::to_string(limit.resource) + ", which does not exist");
    }
    constexpr std::uint32_t kOfTheHost[] = {RLIMIT_NOFILE, RLIMIT_CORE, RLIMIT_MEMLOCK, RLIMIT_MSGQUEUE};
    if (std::find(std::begin(kOfTheHost), std::end(kOfTheHost), limit.resource) != std::end(kOfTheHost)) {
      fault("limits resource " + std::to_string(limit.resource) + ", which the host limits itself");
    }
    to.rlimits.push_back({limit.resource, limit.value});
  }
}

// Each instance of epoll watches as many descriptors as there are: a worker that makes instances has few of both.
void copyDescriptors(const vmmhost_launch_plan& from, LaunchPlan& to) {
  if (from.epoll_count > epolls::kMaxEpolls) {
    fault("asks for " + std::to_string(from.epoll_count) + " instances of epoll, more than " +
          std::to_string(epolls::kMaxEpolls));
  }
  if (from.max_descriptors != 0 &&
      (from.max_descriptors < kFewestDescriptors || from.max_descriptors > kMostDescriptors)) {
    fault("asks for " + std::to_string(from.max_descriptors) + " descriptors, not " +
          std::to_string(kFewestDescriptors) + " to " + std::to_string(kMostDescriptors));
  }
  to.epolls = from.epoll_count;
  to.maxDescriptors = from.max_descriptors == 0 ? kUsualDescriptors : from.max_descriptors;
  if (to.epolls == 0 && !to.hasOldPolicy) {
    to.maxDescriptors = kFewestDescriptors;
  }
  const std::uint32_t first = static_cast<std::uint32_t>(rings::kFirstDescriptor);
  if (first + to.rings + to.epolls + kFurtherDescriptors > to.maxDescriptors) {
    fault("asks for " + std::to_string(to.rings) + " rings and " + std::to_string(to.epolls) +
          " instances of epoll, for which its " + std::to_string(to.maxDescriptors) + " descriptors are too few");
  }
}

struct GrantOfInterface {
  std::uint64_t bit;
  std::uint64_t grant;
};
constexpr GrantOfInterface kGrantsOfInterface[] = {
    {VMMHOST_GRANT_KVM, seccomp::grant::kKvm},
    {VMMHOST_GRANT_TAP, seccomp::grant::kTap},
    {VMMHOST_GRANT_RINGS, seccomp::grant::kRings},
    {VMMHOST_GRANT_DISKS, seccomp::grant::kDisks},
    {VMMHOST_GRANT_VSOCK_SOCKETS, seccomp::grant::kVsockSockets},
    {VMMHOST_GRANT_ACCEPT, seccomp::grant::kAccept},
    {VMMHOST_GRANT_MEMORY_FILES, seccomp::grant::kMemoryFiles},
    {VMMHOST_GRANT_EPOLLS, seccomp::grant::kEpolls},
    {VMMHOST_GRANT_FILES, seccomp::grant::kFiles},
    {VMMHOST_GRANT_TEMPORARY_FILES, seccomp::grant::kTemporaryFiles},
    {VMMHOST_GRANT_LOADER, seccomp::grant::kLoader},
    {VMMHOST_GRANT_PROGRAMS, seccomp::grant::kPrograms},
    {VMMHOST_GRANT_PAIRS, seccomp::grant::kPairs},
};
constexpr std::uint64_t kAllGrants = [] {
  std::uint64_t all = 0;
  for (const GrantOfInterface& one : kGrantsOfInterface) {
    all |= one.bit == one.grant ? one.bit : 0;
  }
  return all;
}();
static_assert(kAllGrants == (std::uint64_t{1} << std::size(kGrantsOfInterface)) - 1,
              "the bits of the plugin interface are those of the policies");

// What a set of grants and the rest of the plan ask of each other.
void checkGrants(const vmmhost_launch_plan& from, const LaunchPlan& to) {
  using namespace seccomp;
  const auto has = [&from](std::uint64_t bit) { return (from.grants & bit) != 0; };
  const auto refuse = [](std::uint64_t bit, const std::string& why) {
    fault("asks for the grant " + namesOf(bit) + ' ' + why);
  };
  const auto require = [](std::uint64_t bit, const std::string& why) {
    fault(why + " without the grant " + namesOf(bit));
  };
  const bool isEmpty = to.root == LaunchPlan::Root::kEmpty;
  for (const std::uint64_t bit : {grant::kFiles, grant::kLoader, grant::kPrograms}) {
    if (has(bit) && isEmpty) {
      refuse(bit, "with an empty root, where there is nothing to open or to execute");
    }
  }
  if (!isEmpty && !has(grant::kFiles)) {
    require(grant::kFiles, "asks for a root with files");
  }
  if (to.proc && !has(grant::kFiles)) {
    require(grant::kFiles, "asks for a /proc");
  }
  if (to.tmp != has(grant::kTemporaryFiles)) {
    to.tmp ? require(grant::kTemporaryFiles, "asks for a /tmp")
           : refuse(grant::kTemporaryFiles, "without a /tmp, which alone is writable");
  }
  if ((from.ring_count > 0) != has(grant::kRings)) {
    from.ring_count > 0 ? require(grant::kRings, "asks for rings") : refuse(grant::kRings, "but for no rings");
  }
  if (has(grant::kRings) && has(grant::kPrograms)) {
    refuse(grant::kRings, "together with programs, which would inherit what the rings are for");
  }
  if ((from.epoll_count == 0) != has(grant::kEpolls)) {
    from.epoll_count == 0
        ? require(grant::kEpolls, "asks for no instances of epoll, so that its worker has to make them, but")
        : refuse(grant::kEpolls, "and for instances of epoll to start with: who has these makes none");
  }
}

// Which policy the plan asks for: by name or by grants.
void choosePolicy(const vmmhost_launch_plan& from, LaunchPlan& to) {
  if (from.grants == 0) {
    if (from.seccomp != nullptr) {
      const std::string name = copyText(from.seccomp, 64, "seccomp policy");
      constexpr std::string_view kPolicies[] = {"worker-static", "worker-dynamic", "worker-system"};
      if (std::find(std::begin(kPolicies), std::end(kPolicies), name) == std::end(kPolicies)) {
        fault("asks for an unknown seccomp policy: " + inQuotes(name));
      }
      to.seccompPolicy = name;
    }
    return;
  }
  if (from.seccomp != nullptr) {
    fault("asks for grants and for the seccomp policy " + inQuotes(copyText(from.seccomp, 64, "seccomp policy")) +
          ", where one of the two makes the policy");
  }
  if ((from.grants & ~kAllGrants) != 0) {
    fault("asks for grants that this host does not know: " + seccomp::namesOf(from.grants & ~kAllGrants));
  }
  if (to.hasOldPolicy) {
    fault("asks for grants, which came with version 1.2 of the interface, and says that it was built for an older one");
  }
  to.seccompPolicy = seccomp::PolicyChoice::ofGrants(from.grants);
  checkGrants(from, to);
}

std::chrono::milliseconds timeout(std::uint64_t given, std::chrono::milliseconds otherwise, const char* what) {
  if (given > kMaxTimeoutMs) {
    fault("has a " + std::string(what) + " timeout of more than ten minutes");
  }
  return given == 0 ? otherwise : std::chrono::milliseconds(given);
}

}  // namespace

LaunchPlan copyLaunchPlan(const vmmhost_launch_plan& from, const std::string& folder, std::uint32_t abi) {
  LaunchPlan to;
  to.hasOldPolicy = (abi & 0xffff) < kMinorOfNewPolicies;
  if (from.root != VMMHOST_ROOT_EMPTY && from.root != VMMHOST_ROOT_SYSTEM) {
    fault("asks for an unknown kind of root, " + std::to_string(from.root));
  }
  to.root = from.root == VMMHOST_ROOT_SYSTEM ? LaunchPlan::Root::kSystem : LaunchPlan::Root::kEmpty;
  constexpr std::uint32_t kFlags = VMMHOST_PLAN_PROC | VMMHOST_PLAN_DEV | VMMHOST_PLAN_TMP | VMMHOST_PLAN_REOPENABLE;
  if ((from.flags & ~kFlags) != 0) {
    fault("has flags that this host does not know");
  }
  if (to.root == LaunchPlan::Root::kEmpty && (from.flags & (VMMHOST_PLAN_DEV | VMMHOST_PLAN_TMP)) != 0) {
    fault("asks for /dev or /tmp in an empty root");
  }
  to.proc = (from.flags & VMMHOST_PLAN_PROC) != 0;
  to.dev = (from.flags & VMMHOST_PLAN_DEV) != 0;
  to.tmp = (from.flags & VMMHOST_PLAN_TMP) != 0;
  to.reopensBootFiles = (from.flags & VMMHOST_PLAN_REOPENABLE) != 0;
  choosePolicy(from, to);
  const std::string worker = workerPath(from.worker, folder);
  to.argv.push_back(worker.substr(worker.rfind('/') + 1));
  checkCount(from.arguments, from.argument_count, kMaxArguments, "arguments");
  for (std::uint32_t index = 0; index < from.argument_count; ++index) {
    to.argv.push_back(copyText(from.arguments[index], kMaxArgumentBytes, "argument"));
  }
  copyBinds(from, to);
  copyDevices(from, to);
  copyRlimits(from, to);
  if (to.seccompPolicy == "worker-static") {
    // Its filter lets it execute the worker's descriptor, and cannot see that an absolute path with it is another file.
    if (to.root != LaunchPlan::Root::kEmpty && !to.hasOldPolicy) {
      fault("asks for a root with files under the seccomp policy worker-static, which opens none of them");
    }
    // Plans of older plugins could ask for files all the same, and their workers opened none.
    to.root = LaunchPlan::Root::kEmpty;
    to.binds.clear();
    to.proc = to.dev = to.tmp = false;
  }
  if (from.max_processes > kMaxProcesses) {
    fault("asks for " + std::to_string(from.max_processes) + " processes, more than " + std::to_string(kMaxProcesses));
  }
  if (from.overhead_bytes > kMaxOverheadBytes) {
    fault("asks for more than 64 GiB besides guest memory");
  }
  if (from.ring_count > rings::kMaxRings) {
    fault("asks for " + std::to_string(from.ring_count) + " rings, more than " + std::to_string(rings::kMaxRings));
  }
  if (from.ring_count > 0 && to.seccompPolicy == "worker-system") {
    fault("asks for rings, which its seccomp policy has no room for");
  }
  to.rings = from.ring_count;
  copyDescriptors(from, to);
  to.maxProcesses = from.max_processes;
  to.overheadBytes = from.overhead_bytes;
  to.helloTimeout = timeout(from.hello_timeout_ms, to.helloTimeout, "hello");
  to.createTimeout = timeout(from.create_timeout_ms, to.createTimeout, "create");

  TrustedFile file = openTrusted(worker, "worker");
  if ((file.status.st_mode & (S_IXUSR | S_IXGRP | S_IXOTH)) == 0) {
    throw Error(ErrorCode::kPermissionDenied, "worker " + file.path + " is not executable",
                "chmod +x " + printable(file.path, PATH_MAX));
  }
  to.workerPath = file.path;
  to.worker = std::move(file.file);
  return to;
}

}  // namespace vmmhost::plugin
