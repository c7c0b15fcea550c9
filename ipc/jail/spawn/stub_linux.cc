#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/mount.h>
#include <linux/prctl.h>
#include <linux/securebits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "ipc/jail/spawn/parent.h"
#include "ipc/jail/spawn/spawn.h"
#include "ipc/jail/spawn/stub.h"
#include "vmmhost/programs.h"
#include "vmmhost/rings.h"
#include "vmmhost/seccomp.h"

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE (1U << 1)
#endif

namespace vmmhost::spawn {
namespace {

constexpr unsigned kRootFlags = MS_NOSUID | MS_NODEV | MS_NOEXEC;

class Stub {
 public:
  explicit Stub(const Plan& plan) noexcept : plan_(plan), status_(plan.status), parent_(plan.parent) {}

  [[noreturn]] void run() noexcept {
    bindToParent();  // changes of ids and capabilities undo it: once more behind them
    waitForGo();
    enterCgroups();
    placeDescriptors();
    openBinds();
    becomeIds();
    leaveSession();
    buildRoot();
    makeRings();
    makeEpolls();
    setLimits();
    resetSignals();
    dropCapabilities();
    bindToParent();
    restrict();
    requireParent();
    char* const noEnvironment[] = {nullptr};
    ::syscall(SYS_execveat, plan_.executableSlot, "", plan_.argv.data(), noEnvironment, AT_EMPTY_PATH);
    fail(Stage::kExec);
  }

 private:
  [[noreturn]] void fail(Stage stage, std::uint32_t index = 0) noexcept { failWith(stage, errno, index); }
  [[noreturn]] void failWith(Stage stage, int errnoValue, std::uint32_t index = 0) noexcept {
    const Report report = {stage, errnoValue, index};
    [[maybe_unused]] const auto written = ::write(status_, &report, sizeof(report));
    ::syscall(SYS_exit_group, 127);
    __builtin_unreachable();
  }
  void check(bool ok, Stage stage, std::uint32_t index = 0) noexcept {
    if (!ok) {
      fail(stage, index);
    }
  }

  void bindToParent() noexcept { check(spawn::bindToParent(status_, parent_), Stage::kParentDeath); }
  void requireParent() noexcept { spawn::requireParent(status_, parent_); }

  // The parent writes the id maps and the control groups first. End of file: the parent is gone.
  void waitForGo() noexcept {
    char byte;
    ssize_t got;
    do {
      pollfd ends[] = {{plan_.go, POLLIN, 0}, {parent_, POLLIN, 0}};
      ::syscall(SYS_ppoll, ends, 2, nullptr, nullptr, 8);
      requireParent();
      got = ::read(plan_.go, &byte, 1);
    } while (got < 0 && errno == EINTR);
    if (got != 1) {
      failWith(Stage::kStart, got < 0 ? errno : EPIPE);
    }
  }

  // "0": the calling thread. A process that is moved from outside makes the kernel wait for an RCU grace period.
  void enterCgroups() noexcept {
    std::uint32_t index = 0;
    for (const int tasks : plan_.cgroupTasks) {
      check(::write(tasks, "0", 1) == 1, Stage::kCgroup, index++);
    }
    // Made inside of them: what a namespace has for its root it shows as "/", and what lies above not at all. The name
    // of the group is that of the VM.
    if (plan_.cgroupNamespace) {
      check(::unshare(CLONE_NEWCGROUP) == 0, Stage::kCgroupNamespace);
    }
  }

  void placeDescriptors() noexcept {
    // Numbers up to the hard limit, whatever the soft one of whoever starts this.
    rlimit64 numbers = {};
    if (::syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, nullptr, &numbers) == 0) {
      numbers.rlim_cur = numbers.rlim_max;
      ::syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &numbers, nullptr);
    }
    // It names files that are open here alone.
    const int ruleset = plan_.landlock ? makeRuleset(plan_) : -1;
    if (plan_.landlock && ruleset < 0) {
      failWith(Stage::kLandlock, -ruleset);
    }
    // Out of the way first: a source may have the number of another one's target.
    const int executable = ::fcntl(plan_.executable, F_DUPFD_CLOEXEC, kFirstSpare);
    const int status = ::fcntl(plan_.status, F_DUPFD_CLOEXEC, kFirstSpare);
    check(executable >= 0 && status >= 0, Stage::kDescriptors);
    status_ = status;
    const int parent = parent_ < 0 ? -1 : ::fcntl(parent_, F_DUPFD_CLOEXEC, kFirstSpare);
    check(parent_ < 0 || parent >= 0, Stage::kDescriptors);
    const int movedRuleset = ruleset < 0 ? -1 : ::fcntl(ruleset, F_DUPFD_CLOEXEC, kFirstSpare);
    check(ruleset < 0 || movedRuleset >= 0, Stage::kDescriptors);
    int moved[32];
    const std::size_t count = plan_.descriptors.size();
    for (std::size_t i = 0; i < count; ++i) {
      moved[i] = ::fcntl(plan_.descriptors[i].source, F_DUPFD_CLOEXEC, kFirstSpare);
      check(moved[i] >= 0, Stage::kDescriptors, static_cast<std::uint32_t>(i));
    }
    int movedPrograms[programs::kMaxPrograms];
    const std::size_t programCount = plan_.programs.size();
    for (std::size_t i = 0; i < programCount; ++i) {
      movedPrograms[i] = ::fcntl(plan_.programs[i], F_DUPFD_CLOEXEC, kFirstSpare);
      check(movedPrograms[i] >= 0, Stage::kDescriptors);
    }
    ::syscall(SYS_close_range, 0u, static_cast<unsigned>(kFirstSpare - 1), 0u);
    for (std::size_t i = 0; i < count; ++i) {
      check(::dup2(moved[i], plan_.descriptors[i].target) >= 0, Stage::kDescriptors, static_cast<std::uint32_t>(i));
    }
    check(::dup3(executable, kExecutableRest, O_CLOEXEC) >= 0, Stage::kDescriptors);
    check(::dup3(status, kStatusSlot, O_CLOEXEC) >= 0, Stage::kDescriptors);
    status_ = kStatusSlot;
    if (parent >= 0) {
      check(::dup3(parent, kParentSlot, O_CLOEXEC) >= 0, Stage::kDescriptors);
      parent_ = kParentSlot;
    }
    if (movedRuleset >= 0) {
      check(::dup3(movedRuleset, kRulesetSlot, O_CLOEXEC) >= 0, Stage::kDescriptors);
    }
    for (std::size_t i = 0; i < programCount; ++i) {
      check(::dup3(movedPrograms[i], kProgramRest + static_cast<int>(i), O_CLOEXEC) >= 0, Stage::kDescriptors);
    }
    check(::syscall(SYS_close_range, static_cast<unsigned>(kFirstSpare), ~0u, 0u) == 0, Stage::kDescriptors);
    // Last: until now somebody else's descriptor could have had the number.
    check(::dup3(kExecutableRest, plan_.executableSlot, O_CLOEXEC) >= 0 && ::close(kExecutableRest) == 0,
          Stage::kDescriptors);
    for (std::size_t i = 0; i < programCount; ++i) {
      const int rest = kProgramRest + static_cast<int>(i);
      check(::dup2(rest, plan_.executableSlot + 1 + static_cast<int>(i)) >= 0 && ::close(rest) == 0,
            Stage::kDescriptors);
    }
  }

  // Still under the user id of whoever starts it, who has found the way to them: the jailed one need not be able to.
  void openBinds() noexcept {
    std::uint32_t index = 0;
    std::size_t count = 0;
    for (const auto& mount : plan_.mounts) {
      if (mount.isChecked) {
        const int file = openChecked(mount);
        if (file < 0) {
          failWith(file == -ESTALE ? Stage::kBindChanged : Stage::kBindOpen, -file, index);
        }
        checkedBinds_[count++] = file;
      }
      ++index;
    }
  }

  void becomeIds() noexcept {
    if (!plan_.userNamespace && !plan_.root) {
      return;
    }
    // Raw system calls: the C library's wrappers want to tell other threads, which this process does not have.
    if (plan_.root) {
      check(::syscall(SYS_setgroups, 0, nullptr) == 0, Stage::kIds);
    }
    check(::syscall(SYS_setresgid, plan_.gid, plan_.gid, plan_.gid) == 0, Stage::kIds);
    if (plan_.userNamespace) {
      check(::syscall(SYS_setresuid, plan_.uid, plan_.uid, plan_.uid) == 0, Stage::kIds);
    } else {
      // Without a user namespace the capabilities for the mounts below are those of root: keep them for now.
      check(::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0, Stage::kIds);
      check(::syscall(SYS_setresuid, plan_.uid, plan_.uid, plan_.uid) == 0, Stage::kIds);
      raiseCapabilities();
    }
  }

  void raiseCapabilities() noexcept {
    __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2] = {};
    check(::syscall(SYS_capget, &header, data) == 0, Stage::kCapabilities);
    data[0].effective = data[0].permitted;
    data[1].effective = data[1].permitted;
    check(::syscall(SYS_capset, &header, data) == 0, Stage::kCapabilities);
  }

  void leaveSession() noexcept {
    check(::setsid() >= 0, Stage::kSession);
    ::umask(077);
    if (plan_.keyring) {
      check(::syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr, 0, 0, 0) >= 0, Stage::kKeyring);
    }
    if (plan_.nestedLimit) {
      // The limit of this user namespace; needs the /proc that is still there.
      const int fd = ::open("/proc/sys/user/max_user_namespaces", O_WRONLY | O_CLOEXEC);
      check(fd >= 0, Stage::kNestedLimit);
      check(::write(fd, "0", 1) == 1, Stage::kNestedLimit);
      ::close(fd);
    }
    check(::sethostname("vm", 2) == 0, Stage::kHostname);
  }

  void setAttributes(const char* path, std::uint64_t attributes, bool recursive, std::uint32_t index) noexcept {
    mount_attr attr = {};
    attr.attr_set = attributes;
    check(::syscall(SYS_mount_setattr, AT_FDCWD, path, recursive ? AT_RECURSIVE : 0, &attr, sizeof(attr)) == 0,
          Stage::kMountAttributes, index);
  }

  void buildRoot() noexcept {
    check(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, Stage::kMountPrivate);
    // Any existing folder will do to hang the new root on for a moment; /proc exists wherever this can run.
    check(::mount("none", "/proc", "tmpfs", kRootFlags, "mode=0555,size=64k,nr_inodes=1024") == 0, Stage::kMountRoot);
    check(::chdir("/proc") == 0, Stage::kMountRoot);
    std::uint32_t index = 0;
    for (const auto& directory : plan_.directories) {
      check(::mkdir(directory.path.c_str(), 0755) == 0 || errno == EEXIST, Stage::kMountBind, index++);
    }
    for (const auto& link : plan_.links) {
      check(::symlink(link.target.c_str(), link.path.c_str()) == 0, Stage::kMountBind, index++);
    }
    index = 0;
    std::size_t checked = 0;
    for (const auto& mount : plan_.mounts) {
      bind(mount, mount.isChecked ? checkedBinds_[checked++] : -1, index++);
    }
    if (plan_.proc) {
      // Processes and nothing else: no interrupts, locks, disks, boot id or settings of the host.
      check(::mount("proc", kProcMount + 1, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "subset=pid") == 0,
            Stage::kMountProc);
      const char line[] = {plan_.overcommit, '\n'};
      const int file = ::open(kOvercommitFile + 1, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0444);
      check(file >= 0 && ::write(file, line, sizeof line) == sizeof line && ::close(file) == 0, Stage::kMountProc);
    }
    if (plan_.tmp) {
      check(::mount("none", "tmp", "tmpfs", kRootFlags, "mode=0700,size=64m,nr_inodes=1024") == 0, Stage::kMountTmp);
    }
    check(::syscall(SYS_pivot_root, ".", ".") == 0, Stage::kPivot);
    check(::umount2(".", MNT_DETACH) == 0, Stage::kPivot);
    check(::chdir("/") == 0, Stage::kPivot);
    const unsigned noExec = plan_.system ? 0 : MS_NOEXEC;
    check(
        ::mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | noExec, nullptr) == 0,
        Stage::kReadOnly);
  }

  void bind(const Plan::Mount& mount, int checked, std::uint32_t index) noexcept {
    if (mount.isFile) {
      const int fd = ::open(mount.target.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0444);
      check(fd >= 0 || errno == EEXIST, Stage::kMountBind, index);
      if (fd >= 0) {
        ::close(fd);
      }
    }
    if (mount.isChecked) {
      if (const int error = attachTree(checked, mount)) {
        failWith(Stage::kBindAttach, error, index);
      }
      return;
    }
    check(::mount(mount.source.c_str(), mount.target.c_str(), nullptr, MS_BIND | MS_REC, nullptr) == 0,
          mount.device ? Stage::kMountDev : Stage::kMountBind, index);
    setAttributes(mount.target.c_str(), mount.attributes(), true, index);
  }

  void setLimits() noexcept {
    std::uint32_t index = 0;
    for (const auto& limit : plan_.limits) {
      const rlimit64 value = {limit.value, limit.value};
      check(::syscall(SYS_prlimit64, 0, limit.resource, &value, nullptr) == 0, Stage::kLimits, index++);
    }
  }

  void resetSignals() noexcept {
    // The kernel's struct, since the C library's wrapper refuses its own internal signals.
    struct {
      void* handler;
      unsigned long flags;
      void* restorer;
      std::uint64_t mask;
    } action = {};
    for (int signal = 1; signal <= 64; ++signal) {
      ::syscall(SYS_rt_sigaction, signal, &action, nullptr, 8);  // SIGKILL and SIGSTOP refuse, and need none
    }
    const std::uint64_t none = 0;
    check(::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, nullptr, 8) == 0, Stage::kSignals);
  }

  void dropCapabilities() noexcept {
    check(::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == 0, Stage::kCapabilities);
    if (plan_.setupCapabilities != 0) {
      keepForSetup();
    }
    for (int capability = 0; capability <= plan_.lastCapability; ++capability) {
      check(::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0, Stage::kCapabilities,
            static_cast<std::uint32_t>(capability));
    }
    constexpr unsigned long kBits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                                    SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                                    SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
    check(::prctl(PR_SET_SECUREBITS, kBits, 0, 0, 0) == 0, Stage::kCapabilities);
    __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    const auto kept = static_cast<std::uint32_t>(plan_.setupCapabilities);  // those there are have low numbers
    const __user_cap_data_struct sets[2] = {{kept, kept, kept}, {}};
    check(::syscall(SYS_capset, &header, sets) == 0, Stage::kCapabilities);
    check(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, Stage::kNoNewPrivs);
  }

  // What is ambient is what it has after exec. That takes no bounding set, which is emptied behind this all the same;
  // once securebits are locked, nothing else becomes ambient.
  void keepForSetup() noexcept {
    __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2] = {};
    check(::syscall(SYS_capget, &header, data) == 0, Stage::kSetupCapabilities);
    data[0].inheritable = static_cast<std::uint32_t>(plan_.setupCapabilities);
    check(::syscall(SYS_capset, &header, data) == 0, Stage::kSetupCapabilities);
    for (int capability = 0; capability <= plan_.lastCapability; ++capability) {
      if ((plan_.setupCapabilities >> capability & 1) != 0) {
        check(::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) == 0, Stage::kSetupCapabilities,
              static_cast<std::uint32_t>(capability));
      }
    }
  }

  // While the calls for it are still allowed, and memory can be locked: kernels before 5.12 and from 6.14 on count that
  // of rings as such. A worker does without those that the system does not offer.
  void makeRings() noexcept {
    unsigned made = 0;
    rings::Geometry geometry{};
    while (made < plan_.rings) {
      const int ring = rings::make(geometry);
      if (ring < 0) {
        break;
      }
      const int place = rings::kFirstDescriptor + static_cast<int>(made);
      if (ring == place) {
        check(::fcntl(ring, F_SETFD, 0) == 0, Stage::kDescriptors);
      } else {
        check(::dup2(ring, place) == place, Stage::kDescriptors);
        ::close(ring);
      }
      ++made;
    }
    if (plan_.rings > 0) {
      rings::writeArgument(plan_.ringsArgument, made, geometry);
    }
  }

  // The last that come to be: the filter has no call for it.
  void makeEpolls() noexcept {
    for (unsigned index = 0; index < plan_.epolls; ++index) {
      const int epoll = static_cast<int>(::syscall(SYS_epoll_create1, 0));
      const int place = plan_.firstEpoll + static_cast<int>(index);
      check(epoll >= 0, Stage::kEpolls, index);
      if (epoll != place) {
        check(::dup2(epoll, place) == place, Stage::kEpolls, index);
        ::close(epoll);
      }
    }
  }

  void restrict() noexcept {
    if (plan_.landlock) {
      if (const int error = restrictByLandlock(plan_, kRulesetSlot)) {
        failWith(Stage::kLandlock, error);
      }
    }
    if (const int error = seccomp::install(plan_.filter, false)) {
      failWith(Stage::kSeccomp, error);
    }
  }

  const Plan& plan_;
  int status_;
  int parent_;  // -1, which no poll looks at: none
  int checkedBinds_[kMaxCheckedBinds] = {};
};

}  // namespace

void runStub(const Plan& plan) noexcept {
  Stub(plan).run();
}

}  // namespace vmmhost::spawn
