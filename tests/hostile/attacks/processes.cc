// Making, taking over and ending processes; being more than it is.
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>

#include <csignal>
#include <cstdio>
#include <cstring>

#include "tests/hostile/attack.h"
#include "tests/hostile/attacks/raw.h"

namespace vmmhost::hostile {
namespace {

constexpr int kExecutableSlot = 256;  // where the spawn stub had this program's file; closed since exec
constexpr unsigned long kThreadFlags = 0x3d0f00;

char* const kArguments[] = {const_cast<char*>("sh"), nullptr};

int makeMemory() {
  return static_cast<int>(::syscall(__NR_memfd_create, "x", MFD_CLOEXEC));
}

int executeMemory(const Loot&) {
  const int memory = makeMemory();
  [[maybe_unused]] const auto written = ::write(memory, "#!/bin/sh\n", 10);
  return raw(__NR_execveat, memory, "", kArguments, nullptr, AT_EMPTY_PATH);
}

int executeAgain(const Loot&) {
  return raw(__NR_execveat, kExecutableSlot, "", kArguments, nullptr, AT_EMPTY_PATH);
}

// The filter looks at the number and not at the path, which is absolute: the number does not count then.
int executePath(const char* path, char* const* arguments = kArguments) {
  return raw(__NR_execveat, kExecutableSlot, path, arguments, nullptr, AT_EMPTY_PATH);
}

// From memory of its own, which could as well lie where the spawn stub had its path.
int executePinned(const Loot&) {
  constexpr std::size_t kPage = 4096;
  char* const page =
      static_cast<char*>(::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (page == MAP_FAILED) {
    return errno;
  }
  std::memcpy(page, "/bin/sh", 8);
  return executePath(page);
}

int executeNamedMemory(const Loot&) {
  constexpr unsigned kNoExecSeal = 8;  // MFD_NOEXEC_SEAL
  int memory = makeMemory();
  if (memory < 0) {
    memory = static_cast<int>(::syscall(__NR_memfd_create, "x", MFD_CLOEXEC | kNoExecSeal));
  }
  if (memory < 0) {
    return errno;
  }
  [[maybe_unused]] const auto written = ::write(memory, "#!/bin/sh\n", 10);
  char path[32];
  std::snprintf(path, sizeof path, "/proc/self/fd/%d", memory);
  return executePath(path);
}

// As the worker that it is, which then leaves.
int executeSelf(const Loot& loot) {
  char* const arguments[] = {const_cast<char*>("hostile-worker"), const_cast<char*>("leave"),
                             const_cast<char*>("constructor"), const_cast<char*>(loot.token), nullptr};
  return executePath("/proc/self/exe", arguments);
}

int executeByLoader(const Loot&) {
  char* const arguments[] = {const_cast<char*>("ld.so"), const_cast<char*>("/usr/bin/true"), nullptr};
  return executePath("/lib64/ld-linux-x86-64.so.2", arguments);
}

int readHost(const Loot&) {
  char byte = 0;
  iovec here{&byte, 1};
  iovec there{reinterpret_cast<void*>(0x400000), 1};
  return raw(__NR_process_vm_readv, 1, &here, 1, &there, 1, 0);
}

int raiseLimit(const Loot&) {
  const rlimit64 limit{RLIM64_INFINITY, RLIM64_INFINITY};
  return raw(__NR_prlimit64, 0, RLIMIT_NOFILE, &limit, nullptr);
}

int useInt80(const Loot&) {
  long result = 20;  // getpid
  asm volatile("int $0x80" : "+a"(result) : : "r8", "r9", "r10", "r11", "memory");
  return result > 0 ? 0 : static_cast<int>(-result);
}

int makeDescriptorAtSlot(const Loot& loot) {
  return rawOpen(__NR_fcntl, loot.rpc, F_DUPFD_CLOEXEC, kExecutableSlot);
}

// A process that stays, holding everything that the worker holds.
int leaveChild(long call, unsigned long flags) {
  const long child = ::syscall(call, flags, 0, 0, 0, 0);
  while (child == 0) {
    ::pause();
  }
  return child < 0 ? errno : 0;
}

int leaveShortChild(const Loot&) {
  const pid_t child = ::vfork();
  if (child == 0) {
    ::_exit(0);
  }
  return child < 0 ? errno : 0;
}

int keepDescriptor(const Loot& loot) {
  return raw(__NR_fcntl, loot.rpc, F_DUPFD_CLOEXEC, 10);
}

constexpr Attack kAttacks[] = {
    {"int80", useInt80},
    {"x32", [](const Loot&) { return raw(0x40000000 | __NR_getpid); }},
    {"execve", [](const Loot&) { return raw(__NR_execve, "/bin/sh", kArguments, nullptr); }, kKilled, kEnded},
    {"execveat-path", [](const Loot&) { return raw(__NR_execveat, AT_FDCWD, "/bin/sh", kArguments, nullptr, 0); }},
    {"memfd-exec", executeMemory},
    // The one descriptor that may be executed is closed for good: its number is beyond the limit.
    {"exec-again", executeAgain, fails(EBADF), fails(EBADF)},
    {"exec-slot", makeDescriptorAtSlot, kKilled, fails(EINVAL)},
    // By path: there is nothing in an empty root, and programs of a system root may be started anyhow.
    {"exec-absolute", [](const Loot&) { return executePath("/usr/bin/true"); }, fails(ENOENT), kEnded},
    {"exec-pinned", executePinned, fails(ENOENT), kEnded},
    {"exec-library", [](const Loot&) { return executePath("/lib/x86_64-linux-gnu/libc.so.6"); }, fails(ENOENT), kEnded},
    {"exec-memory", executeNamedMemory, kKilled, fails(EINVAL)},
    {"exec-self", executeSelf, fails(ENOENT), kEnded},
    {"exec-loader", executeByLoader, fails(ENOENT), kEnded},
    {"keep-descriptor", keepDescriptor, kKilled, kRefused, When::kConstructor},
    {"fork", [](const Loot&) { return leaveChild(__NR_fork, 0); }, kKilled, kHarmless},
    {"vfork", leaveShortChild, kKilled, kHarmless},
    {"clone-process", [](const Loot&) { return leaveChild(__NR_clone, SIGCHLD); }, kKilled, kHarmless},
    {"clone-namespace", [](const Loot&) { return raw(__NR_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0); }},
    {"clone-thread-and-namespace",
     [](const Loot&) { return raw(__NR_clone, kThreadFlags | CLONE_NEWNET, 0, 0, 0, 0); }},
    {"clone3", [](const Loot&) { return raw(__NR_clone3, nullptr, 0); }, fails(ENOSYS), fails(ENOSYS)},
    {"ptrace", [](const Loot&) { return raw(__NR_ptrace, PTRACE_ATTACH, 1, 0, 0); }},
    {"process-vm-readv", readHost},
    {"kill-all", [](const Loot&) { return raw(__NR_kill, -1, SIGKILL); }, kKilled, fails(ESRCH)},
    {"kill-parent", [](const Loot&) { return raw(__NR_kill, 0, SIGKILL); }, kKilled, kHarmless},
    {"tkill", [](const Loot&) { return raw(__NR_tkill, 9999, SIGKILL); }, kKilled, fails(ESRCH)},
    // Allowed, for abort(); but nobody else is in the PID namespace.
    {"tgkill-other", [](const Loot&) { return raw(__NR_tgkill, 2, 2, SIGKILL); }, fails(ESRCH), fails(ESRCH)},
    {"queue-signal", [](const Loot&) { return raw(__NR_rt_sigqueueinfo, 1, SIGKILL, nullptr); }},
    {"pidfd-open", [](const Loot&) { return rawOpen(__NR_pidfd_open, 1, 0); }, kKilled, kHarmless},
    {"pidfd-getfd", [](const Loot& loot) { return raw(__NR_pidfd_getfd, loot.rpc, 0, 0); }},
    {"kcmp", [](const Loot&) { return raw(__NR_kcmp, 1, 1, 0, 0, 0); }},
    {"set-user", [](const Loot&) { return raw(__NR_setuid, 0); }},
    {"set-groups", [](const Loot&) { return raw(__NR_setgroups, 0, nullptr); }},
    {"set-capabilities", [](const Loot&) { return raw(__NR_capset, nullptr, nullptr); }},
    {"raise-limit", raiseLimit, kKilled, fails(EPERM)},
    {"raise-priority", [](const Loot&) { return raw(__NR_setpriority, PRIO_PROCESS, 0, -20); }, kKilled, fails(EPERM)},
    {"become-dumpable", [](const Loot&) { return raw(__NR_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0); }, kKilled,
     fails(EINVAL)},
    {"outlive-host", [](const Loot&) { return raw(__NR_prctl, PR_SET_PDEATHSIG, 0, 0, 0, 0); }, kKilled, fails(EINVAL)},
    {"name-tracer", [](const Loot&) { return raw(__NR_prctl, PR_SET_PTRACER, -1, 0, 0, 0); }, kKilled, fails(EINVAL)},
    {"rewrite-memory-map", [](const Loot&) { return raw(__NR_prctl, PR_SET_MM, PR_SET_MM_EXE_FILE, 3, 0, 0); }, kKilled,
     fails(EINVAL)},
    // No attack: it does nothing, and so does not notice that its host is gone.
    {"sit", [](const Loot&) { return raw(__NR_ppoll, nullptr, 0, nullptr, nullptr, 8); }, kHarmless, kHarmless,
     When::kStays},
    // What a worker does that was started once more.
    {"leave", [](const Loot&) -> int { ::_exit(42); }, kEnded, kEnded, When::kStays},
};

}  // namespace

std::span<const Attack> processAttacks() {
  return kAttacks;
}

}  // namespace vmmhost::hostile
