#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <string_view>

#include "host/cli/verbs/doctor.h"
#include "ipc/jail/spawn/user_namespace.h"
#include "vmmhost/error.h"
#include "vmmhost/fd.h"

namespace vmmhost::cli {

namespace {

constexpr unsigned long kLandlockCreateRulesetVersion = 1;  // LANDLOCK_CREATE_RULESET_VERSION

// The first bytes of a small file; nothing if it cannot be read.
std::optional<std::string> smallFile(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  char buffer[4096];
  const ssize_t count = file ? ::read(file.get(), buffer, sizeof buffer) : -1;
  if (count < 0) {
    return std::nullopt;
  }
  std::string text(buffer, static_cast<std::size_t>(count));
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) {
    text.pop_back();
  }
  return text;
}

bool isWritable(const std::string& path) {
  return ::access(path.c_str(), W_OK) == 0;
}

// The folder of this process's own control group below the mount of a hierarchy, from a line of /proc/self/cgroup.
std::optional<std::string> ownGroup(const std::string& lines, std::string_view hierarchy) {
  std::size_t at = 0;
  while (at < lines.size()) {
    const std::size_t end = std::min(lines.find('\n', at), lines.size());
    const std::string_view line = std::string_view(lines).substr(at, end - at);
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first != std::string_view::npos && second != std::string_view::npos &&
        line.substr(first + 1, second - first - 1) == hierarchy) {
      return std::string(line.substr(second + 1));
    }
    at = end + 1;
  }
  return std::nullopt;
}

}  // namespace

Check checkKvm(const std::string& root) {
  const std::string path = root + "/dev/kvm";
  const Fd device(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (device) {
    return {"kvm", Check::Status::kOk, "/dev/kvm can be opened", {}};
  }
  if (errno == EACCES || errno == EPERM) {
    return {"kvm", Check::Status::kWarning, "/dev/kvm is there, but this user may not open it",
            "sudo usermod -aG kvm \"$USER\", then log in again"};
  }
  return {"kvm", Check::Status::kWarning, "there is no /dev/kvm",
          "sudo modprobe kvm_intel || sudo modprobe kvm_amd; inside a virtual machine, turn on nested virtualization"};
}

Check checkUserNamespaces(const std::string& root, uid_t uid, int refusal, bool isInChroot) {
  const std::string sys = root + "/proc/sys";
  if (smallFile(sys + "/user/max_user_namespaces").value_or("") == "0") {
    return {"user-namespaces", Check::Status::kProblem, "user.max_user_namespaces is 0",
            "sudo sysctl user.max_user_namespaces=15000"};
  }
  if (uid != 0 && smallFile(sys + "/kernel/unprivileged_userns_clone").value_or("") == "0") {
    return {"user-namespaces", Check::Status::kProblem, "kernel.unprivileged_userns_clone is 0",
            "sudo sysctl kernel.unprivileged_userns_clone=1"};
  }
  if (uid != 0 && smallFile(sys + "/kernel/apparmor_restrict_unprivileged_userns").value_or("") == "1") {
    return {"user-namespaces", Check::Status::kProblem, "kernel.apparmor_restrict_unprivileged_userns is 1",
            "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"};
  }
  if (::access((root + "/proc/self/ns/user").c_str(), F_OK) != 0) {
    return {"user-namespaces", Check::Status::kProblem, "the kernel has no user namespaces",
            "use a kernel with CONFIG_USER_NS"};
  }
  if (refusal == ENOSPC || refusal == EUSERS) {
    return {"user-namespaces", Check::Status::kProblem, "there are as many as there may be, or one in the other",
            "sudo sysctl user.max_user_namespaces=15000"};
  }
  if (refusal != 0 && isInChroot) {
    return {"user-namespaces", Check::Status::kProblem, std::string(spawn::kChrootText),
            std::string(spawn::kChrootHint)};
  }
  if (refusal != 0) {
    return {"user-namespaces", Check::Status::kProblem,
            systemError("not switched off, but refused to this process", refusal).message(),
            "a seccomp filter or a security module forbids them, or this is a chroot: run outside of that container, "
            "sandbox or chroot, or allow clone with CLONE_NEWUSER there"};
  }
  return {"user-namespaces", Check::Status::kOk, "can be made", {}};
}

Check checkSeccomp(const std::string& root) {
  const auto actions = smallFile(root + "/proc/sys/kernel/seccomp/actions_avail");
  if (!actions) {
    return {"seccomp", Check::Status::kProblem, "the kernel has no seccomp filters",
            "use a kernel with CONFIG_SECCOMP_FILTER"};
  }
  if (actions->find("kill_process") == std::string::npos) {
    return {"seccomp", Check::Status::kProblem, "seccomp filters cannot end a whole process",
            "use Linux 4.14 or later"};
  }
  return {"seccomp", Check::Status::kOk, "filters can be installed", {}};
}

Check checkLandlock() {
  const long abi = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, kLandlockCreateRulesetVersion);
  if (abi > 0) {
    return {"landlock", Check::Status::kOk, "ABI " + std::to_string(abi), {}};
  }
  if (errno == EOPNOTSUPP) {
    return {"landlock", Check::Status::kProblem, "Landlock is in the kernel, but turned off",
            "add landlock to the list of lsm= on the kernel's command line; or run with --without landlock"};
  }
  return {"landlock", Check::Status::kProblem, "the kernel has no Landlock",
          "use Linux 5.13 or later with CONFIG_SECURITY_LANDLOCK; or run with --without landlock"};
}

Check checkCgroups(const std::string& root) {
  const std::string lines = smallFile(root + "/proc/self/cgroup").value_or("");
  const std::string mount = root + "/sys/fs/cgroup";
  const std::string fix =
      "run as root, or in a unit with Delegate=yes: systemd-run --user --scope -p Delegate=yes vmmhost ...";
  const std::string unlimited = "not writable: VMs run without limits of memory and processes";
  if (const auto controllers = smallFile(mount + "/cgroup.controllers"); controllers && !controllers->empty()) {
    const std::string own = ownGroup(lines, "").value_or("");
    if (isWritable(mount + own)) {
      return {"cgroups", Check::Status::kOk, "version 2, writable: limits are set", {}};
    }
    return {"cgroups", Check::Status::kWarning, "version 2, " + unlimited, fix};
  }
  const std::string memory = ownGroup(lines, "memory").value_or("");
  if (isWritable(mount + "/memory" + memory) && isWritable(mount + "/pids")) {
    return {"cgroups", Check::Status::kOk, "version 1, writable: limits are set", {}};
  }
  return {"cgroups", Check::Status::kWarning, unlimited, fix};
}

Check checkQemu(const std::string& path) {
  constexpr const char* kProgram = "qemu-system-x86_64";
  std::size_t at = 0;
  while (at <= path.size()) {
    const std::size_t end = std::min(path.find(':', at), path.size());
    const std::string candidate = path.substr(at, end - at) + '/' + kProgram;
    if (end > at && ::access(candidate.c_str(), X_OK) == 0) {
      return {"qemu", Check::Status::kOk, candidate, {}};
    }
    at = end + 1;
  }
  return {"qemu", Check::Status::kWarning, std::string("there is no ") + kProgram + " in PATH",
          "sudo apt install qemu-system-x86"};
}

}  // namespace vmmhost::cli
