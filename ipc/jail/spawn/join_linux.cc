// Joining a network namespace. Who is in a user namespace of his own has no rights over a network that lies above, so
// that it is entered before: by a process between the one that starts the jail and the jailed one. It makes the latter
// as its own sibling (CLONE_PARENT), tells its number, and ends. Only system calls on values prepared before.
#include <fcntl.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "ipc/jail/spawn/parent.h"
#include "ipc/jail/spawn/spawn.h"
#include "ipc/jail/spawn/stub.h"

namespace vmmhost::spawn {
namespace {

// Text that grows without memory being allocated.
class ShortText {
 public:
  ShortText& add(const char* text) noexcept {
    for (; *text != '\0' && length_ + 1 < sizeof(text_); ++text) {
      text_[length_++] = *text;
    }
    return *this;
  }
  ShortText& add(unsigned long number) noexcept {
    char digits[24] = {};
    std::size_t at = sizeof(digits) - 1;
    do {
      digits[--at] = static_cast<char>('0' + number % 10);
      number /= 10;
    } while (number != 0);
    return add(digits + at);
  }
  const char* get() const noexcept { return text_; }
  std::size_t length() const noexcept { return length_; }

 private:
  char text_[64] = {};
  std::size_t length_ = 0;
};

bool writeProcFile(pid_t pid, const char* name, const ShortText& text) noexcept {
  ShortText path;
  path.add("/proc/").add(static_cast<unsigned long>(pid)).add("/").add(name);
  const int file = ::open(path.get(), O_WRONLY | O_CLOEXEC);
  if (file < 0) {
    return false;
  }
  const bool isWritten = ::write(file, text.get(), text.length()) == static_cast<ssize_t>(text.length());
  const int error = errno;
  ::close(file);
  errno = error;
  return isWritten;
}

// The maps of a user namespace are written from the one that it lies below, where this process is; ids are those that
// it has there itself.
bool mapIds(pid_t pid) noexcept {
  ShortText uids;
  uids.add(kInsideUid).add(" ").add(static_cast<unsigned long>(::syscall(SYS_geteuid))).add(" 1\n");
  ShortText gids;
  gids.add(kInsideGid).add(" ").add(static_cast<unsigned long>(::syscall(SYS_getegid))).add(" 1\n");
  return writeProcFile(pid, "setgroups", ShortText().add("deny")) && writeProcFile(pid, "uid_map", uids) &&
         writeProcFile(pid, "gid_map", gids);
}

}  // namespace

void runJoiner(const Plan& plan, clone_args stub, int end) noexcept {
  const auto finish = [end](Stage stage, int errnoValue, pid_t pid) {
    const JoinReport report = {{stage, errnoValue, 0}, pid};
    [[maybe_unused]] const auto written = ::write(end, &report, sizeof(report));
    ::syscall(SYS_exit_group, stage == Stage::kNone ? 0 : 127);
    __builtin_unreachable();
  };
  const auto check = [&](bool ok, Stage stage) {
    if (!ok) {
      finish(stage, errno, -1);
    }
  };
  check(bindToParent(plan.status, plan.parent), Stage::kParentDeath);
  if (plan.joinUser >= 0) {
    check(::setns(plan.joinUser, CLONE_NEWUSER) == 0, Stage::kJoinUser);
    check(bindToParent(plan.status, plan.parent), Stage::kParentDeath);  // new capabilities may undo it
  }
  check(::setns(plan.joinNetwork, CLONE_NEWNET) == 0, Stage::kJoinNetwork);
  // The stub asks for the end of whoever is its parent then, and looks whether that one lives, as ever.
  stub.flags |= CLONE_PARENT;
  stub.exit_signal = 0;  // a sibling has this process's own
  const long pid = ::syscall(SYS_clone3, &stub, sizeof(stub));
  if (pid == 0) {
    ::close(end);
    runStub(plan);
  }
  check(pid > 0, Stage::kJoinClone);
  const bool isMapped = plan.joinUser < 0 || mapIds(static_cast<pid_t>(pid));
  finish(isMapped ? Stage::kNone : Stage::kJoinIds, isMapped ? 0 : errno, static_cast<pid_t>(pid));
  __builtin_unreachable();
}

}  // namespace vmmhost::spawn
