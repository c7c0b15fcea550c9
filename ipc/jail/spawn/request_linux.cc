// What a request must not ask for. Plans of plugins cannot come to any of it; here it is said once for whoever plans.
#include <linux/capability.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <string_view>

#include "ipc/jail/spawn/plan.h"
#include "vmmhost/programs.h"

namespace vmmhost::spawn {
namespace {

constexpr std::array<int, 3> kSetupCapabilities = {CAP_NET_ADMIN, CAP_NET_RAW, CAP_NET_BIND_SERVICE};

bool isGivenUp(const Jail& jail, const char* part) {
  return jail.without.count(part) != 0;
}

[[noreturn]] void fault(const Request& request, const std::string& what) {
  throw Error(ErrorCode::kInternal, "the plan of the " + request.name + " " + what);
}

// `part` cannot be given up by a process that is built on it.
void requirePart(const Request& request, const char* part, const std::string& why) {
  if (isGivenUp(request.jail, part)) {
    throw Error(ErrorCode::kInvalidArgument, "the " + request.name + " cannot do without its " + part + ": " + why,
                std::string("leave out --without ") + part);
  }
}

// Absolute, below the root, and one that leads there as it is written.
bool isPlainPath(std::string_view path) {
  if (path.size() < 2 || path.front() != '/' || path.find('\0') != std::string_view::npos) {
    return false;
  }
  while (!path.empty()) {
    path.remove_prefix(1);
    const std::string_view name = path.substr(0, path.find('/'));
    if (name.empty() || name == "." || name == "..") {
      return false;
    }
    path.remove_prefix(name.size());
  }
  return true;
}

void validateBinds(const Request& request) {
  std::size_t checked = 0;
  for (const Bind& bind : request.jail.binds) {
    if (bind.descriptor < 0) {
      if (!bind.readOnly) {
        fault(request, "binds " + bind.source + " writable, but by its path alone");
      }
      continue;
    }
    if (!isPlainPath(bind.target)) {
      fault(request, "binds " + bind.source + " to '" + bind.target + "', which is no plain absolute path");
    }
    struct stat info = {};
    if (++checked > kMaxCheckedBinds) {
      fault(request, "binds more than " + std::to_string(kMaxCheckedBinds) + " checked files");
    }
    if (::fstat(bind.descriptor, &info) != 0) {
      throw systemError("root of the " + request.name + ": " + bind.source, errno);
    }
    // A socket is a way to whoever listens, past every namespace.
    if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) {
      throw Error(ErrorCode::kInvalidArgument,
                  "root of the " + request.name + ": " + bind.source + " is neither a regular file nor a folder");
    }
  }
}

void requireKind(const Request& request, const Namespace& joined, int kind, const std::string& name) {
  if (joined.descriptor < 0 || ::ioctl(joined.descriptor, NS_GET_NSTYPE) != kind) {
    fault(request, "joins what is no " + name + " namespace");
  }
}

void requireOwner(const Request& request) {
  const Fd owner(::ioctl(request.jail.network.descriptor, NS_GET_USERNS));
  struct stat owning = {};
  struct stat joined = {};
  if (!owner) {
    throw systemError("asking who owns the network namespace that the " + request.name + " joins", errno);
  }
  if (::fstat(owner.get(), &owning) != 0 || ::fstat(request.jail.user.descriptor, &joined) != 0 ||
      owning.st_dev != joined.st_dev || owning.st_ino != joined.st_ino) {
    fault(request, "joins a user namespace that does not own the network namespace");
  }
}

bool isOwn(const Namespace& joined, const char* path) {
  struct stat own = {};
  struct stat theirs = {};
  return ::stat(path, &own) == 0 && ::fstat(joined.descriptor, &theirs) == 0 && own.st_dev == theirs.st_dev &&
         own.st_ino == theirs.st_ino;
}

void validateNamespaces(const Request& request) {
  const Jail& jail = request.jail;
  const bool joinsNetwork = jail.network.how == Namespace::How::kJoined;
  const bool joinsUser = jail.user.how == Namespace::How::kJoined;
  if (jail.user.how == Namespace::How::kKept) {
    fault(request, "keeps the user namespace; only a network can be kept");
  }
  if (jail.network.how != Namespace::How::kNew) {
    requirePart(request, "net-namespace", "its network is another one than its own already");
  }
  if (joinsUser && !joinsNetwork) {
    fault(request, "joins a user namespace without a network of it");
  }
  if (!joinsNetwork) {
    return;
  }
  requireKind(request, jail.network, CLONE_NEWNET, "network");
  if (isOwn(jail.network, "/proc/self/ns/net")) {
    fault(request, "joins the network namespace of the host; that is to be said as keeping it");
  }
  const bool isRoot = ::geteuid() == 0;
  if (isRoot && joinsUser) {
    fault(request, "joins a user namespace, which root does without");
  }
  if (!isRoot && !joinsUser) {
    fault(request, "joins a network namespace as an ordinary user, but no user namespace that owns it");
  }
  if (joinsUser) {
    requireKind(request, jail.user, CLONE_NEWUSER, "user");
    requirePart(request, "user-namespace", "it lies below the one that owns its network");
    requireOwner(request);
  }
}

void validateSetup(const Request& request) {
  const Jail& jail = request.jail;
  if (jail.setupCapabilities.empty()) {
    return;
  }
  for (const int capability : jail.setupCapabilities) {
    if (std::find(kSetupCapabilities.begin(), kSetupCapabilities.end(), capability) == kSetupCapabilities.end()) {
      fault(request, "asks for capability " + std::to_string(capability) + ", which no set-up is given");
    }
  }
  if (jail.network.how != Namespace::How::kNew || jail.user.how != Namespace::How::kNew) {
    fault(request, "asks for capabilities over a network that is not its own");
  }
  requirePart(request, "user-namespace", "it sets up its network with capabilities that hold there alone");
  requirePart(request, "net-namespace", "it sets up the network in it");
}

void validatePrograms(const Request& request) {
  if (request.programs.empty()) {
    return;
  }
  if (request.programs.size() > programs::kMaxPrograms) {
    fault(request, "has more than " + std::to_string(programs::kMaxPrograms) + " programs");
  }
  if (request.jail.root == Jail::Root::kSystem) {
    fault(request, "has programs besides all those of the system");
  }
  // Landlock does not see files of memory, and no filter sees a path.
  if (request.jail.proc) {
    fault(request, "has programs and a /proc, where a file of memory has a path");
  }
  const auto isOfProcesses = [](const Jail::Rlimit& limit) { return limit.resource == RLIMIT_NPROC; };
  if (std::none_of(request.jail.rlimits.begin(), request.jail.rlimits.end(), isOfProcesses)) {
    fault(request, "has programs, and no limit of processes (RLIMIT_NPROC)");
  }
  requirePart(request, "landlock", "it starts programs, and Landlock says which");
  for (const int program : request.programs) {
    struct stat info = {};
    if (::fstat(program, &info) != 0 || !S_ISREG(info.st_mode)) {
      fault(request, "has a program that is no regular file");
    }
  }
}

}  // namespace

void validate(const Request& request) {
  validateBinds(request);
  validateNamespaces(request);
  validateSetup(request);
  validatePrograms(request);
}

}  // namespace vmmhost::spawn
