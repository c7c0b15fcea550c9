// Landlock (Documentation/userspace-api/landlock.rst): after it nothing can be opened but what a rule names.
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "ipc/jail/spawn/stub.h"

namespace vmmhost::spawn {
namespace {

// Rights that came after the headers of Debian 12 (ABI 1 and 2 are there).
constexpr std::uint64_t kFsTruncate = 1ull << 14;  // ABI 3
constexpr std::uint64_t kFsIoctlDev = 1ull << 15;  // ABI 5
constexpr std::uint64_t kNetBindTcp = 1ull << 0;   // ABI 4
constexpr std::uint64_t kNetConnectTcp = 1ull << 1;
constexpr std::uint64_t kScopeAbstractUnixSocket = 1ull << 0;  // ABI 6
constexpr std::uint64_t kScopeSignal = 1ull << 1;

struct RulesetAttributes {
  std::uint64_t handledFs;
  std::uint64_t handledNet;
  std::uint64_t scoped;
};

int addRule(int ruleset, int fd, std::uint64_t access) noexcept {
  landlock_path_beneath_attr rule = {};
  rule.allowed_access = access;
  rule.parent_fd = fd;
  return ::syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) == 0 ? 0 : errno;
}

int addPath(int ruleset, const char* path, std::uint64_t access) noexcept {
  const int fd = ::open(path, O_PATH | O_CLOEXEC);
  if (fd < 0) {
    return errno;
  }
  const int result = addRule(ruleset, fd, access);
  ::close(fd);
  return result;
}

// Whatever the root is, since each is there because somebody asked for it. The root is the process's own by now.
int addCheckedBinds(const Plan& plan, int ruleset) noexcept {
  constexpr std::uint64_t kNever =
      LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK | kFsIoctlDev;
  constexpr std::uint64_t kOfFiles = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | kFsTruncate;
  for (const auto& mount : plan.mounts) {
    if (!mount.isChecked) {
      continue;
    }
    std::uint64_t access =
        mount.readOnly ? LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR : plan.landlockFs & ~kNever;
    if (mount.isFile) {
      access &= kOfFiles;
    }
    if (const int error = addPath(ruleset, mount.target.c_str(), access)) {
      return error;
    }
  }
  return 0;
}

}  // namespace

int landlockAbi() noexcept {
  const long abi = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  return abi > 0 ? static_cast<int>(abi) : 0;
}

void fillLandlock(Plan& plan, int abi) {
  plan.landlockFs = (1ull << 13) - 1;  // ABI 1: execute to make_sym
  if (abi >= 2) {
    plan.landlockFs |= 1ull << 13;  // refer
  }
  if (abi >= 3) {
    plan.landlockFs |= kFsTruncate;
  }
  if (abi >= 4) {
    plan.landlockNet = kNetBindTcp | kNetConnectTcp;
  }
  if (abi >= 5) {
    plan.landlockFs |= kFsIoctlDev;
  }
  if (abi >= 6) {
    plan.landlockScope = kScopeAbstractUnixSocket | kScopeSignal;
  }
}

int makeRuleset(const Plan& plan) noexcept {
  const RulesetAttributes attributes = {plan.landlockFs, plan.landlockNet, plan.landlockScope};
  // An older kernel takes the struct only as long as it knows it.
  const std::size_t size = plan.landlockScope != 0 ? 24 : plan.landlockNet != 0 ? 16 : 8;
  const int ruleset = static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attributes, size, 0));
  if (ruleset < 0) {
    return -errno;
  }
  for (const int file : plan.readable) {
    const int result = addRule(ruleset, file, LANDLOCK_ACCESS_FS_READ_FILE);
    if (result != 0 && result != EBADFD) {  // that: a file of memory, which no rule is needed for
      return -result;
    }
  }
  return ruleset;
}

int restrictByLandlock(const Plan& plan, int ruleset) noexcept {
  constexpr std::uint64_t kRead = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
  int result = addRule(ruleset, plan.executableSlot, LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE);
  // Files that have no place of their own (memfds) are beyond Landlock: no descriptor that they could have is executed.
  for (std::size_t i = 0; result == 0 && i < plan.programs.size(); ++i) {
    result = addRule(ruleset, plan.executableSlot + 1 + static_cast<int>(i),
                     LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE);
  }
  if (result == 0) {
    result = addCheckedBinds(plan, ruleset);
  }
  if (result == 0 && plan.system) {
    result = addPath(ruleset, "/", kRead | LANDLOCK_ACCESS_FS_EXECUTE);
  } else if (result == 0 && plan.binds) {
    result = addPath(ruleset, "/", kRead);
    if (result == 0 && !plan.loader.empty()) {
      result = addPath(ruleset, plan.loader.c_str(), LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE);
    }
  }
  if (result == 0 && plan.dev) {
    result = addPath(ruleset, "/dev", kRead | LANDLOCK_ACCESS_FS_WRITE_FILE);
  }
  if (result == 0 && plan.tmp) {
    result = addPath(ruleset, "/tmp",
                     plan.landlockFs & ~(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR |
                                         LANDLOCK_ACCESS_FS_MAKE_BLOCK | kFsIoctlDev));
  }
  if (result == 0 && ::syscall(SYS_landlock_restrict_self, ruleset, 0) != 0) {
    result = errno;
  }
  ::close(ruleset);
  return result;
}

}  // namespace vmmhost::spawn
