// Seccomp policies as tables: compiled to BPF, evaluated in tests, installed by the spawn stub and by workers.
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace vmmhost::seccomp {

// One condition on an argument: (argument & mask) == value. All 64 bits count. `mask` is all ones for equality.
struct ArgCheck {
  std::uint8_t index = 0;  // 0 to 5
  std::uint64_t mask = ~std::uint64_t{0};
  std::uint64_t value = 0;
};

// A system call and the conditions under which it is allowed; all must hold. Several rules for one number are
// alternatives.
struct Rule {
  std::uint32_t number = 0;
  std::vector<ArgCheck> checks;
};

// A system call that fails with an errno without being carried out, for calls that a C library tries and can do
// without (clone3: ENOSYS). For a number that also has allow rules it is the answer when none of them holds.
struct ErrnoRule {
  std::uint32_t number = 0;
  std::uint16_t errnoValue = 0;
};

// Everything not listed ends the process (SECCOMP_RET_KILL_PROCESS), as does a foreign architecture or an x32 number.
struct Policy {
  std::string_view name;
  std::vector<Rule> allow;
  std::vector<ErrnoRule> fail;
};

// AUDIT_ARCH_* of the machine that this is compiled for: what seccomp_data.arch holds for its own calls.
extern const std::uint32_t kAuditArch;

// The BPF program for this machine's architecture. Rules of one number are alternatives; numbers are found by binary
// search over ranges, so that a call costs few instructions. Throws Error(kInternal), naming the policy and the
// number, when a policy cannot be expressed: a condition that can never hold, a number that does not exist in the
// native call table, two errno values for one number, a program above the kernel's 4096 instructions.
std::vector<sock_filter> compile(const Policy& policy);

// Carries a BPF program out on a system call without running anything: the SECCOMP_RET_* value with its data.
// A program that the kernel would not accept, or that divides by zero, answers SECCOMP_RET_KILL_PROCESS.
std::uint32_t evaluate(std::span<const sock_filter> program, const seccomp_data& call);

// Installs a program for the calling thread (or for all threads of the process). Needs no_new_privs. Async-signal-safe.
// Returns 0 or an errno value.
int install(std::span<const sock_filter> program, bool allThreads) noexcept;

// Parameters that only the spawner knows.
struct BaseParameters {
  // The descriptor that the stub executes: execveat is allowed on it alone. It equals RLIMIT_NOFILE, so that it can
  // never be opened again once it was closed on exec. That says nothing of absolute paths: those are for the root.
  int executableDescriptor = -1;
  // How many rings it starts with (vmmhost/rings.h); on these alone is io_uring_enter allowed.
  unsigned rings = 0;
  // What workers of earlier plugins are allowed: since 1.2 the host makes the memory that a worker shares.
  bool makesMemoryFiles = false;
  // Workers of earlier plugins, and those that have few descriptors and are not built with the SDK. All others start
  // with the instances of epoll that they need (vmmhost/epolls.h); static ones of them duplicate no descriptor either.
  bool makesEpolls = false;
  // Whether the jail has a /proc, where a file of memory has a path: under worker-dynamic it must be sealed against
  // being executed then.
  bool hasProc = false;
};

// Base policies, installed by the spawn stub as its last step before exec, by name; throws Error(kInvalidArgument) for
// another name. Each lets a worker install further filters, which can only take rights away.
//   "worker-static"   a static executable that uses KJ, Cap'n Proto and KVM and never opens, connects or executes
//                     (an absolute path with execveat is no part of what it sees: only for roots without any file)
//   "worker-dynamic"  the same with a dynamic loader in a read-only root of its libraries (sanitizer builds)
//   "worker-system"   a worker that starts programs of the system root (execve, fork), but creates no socket and
//                     connects nowhere: socketpair is its only way to talk to them
Policy basePolicy(std::string_view name, const BaseParameters& parameters);

}  // namespace vmmhost::seccomp
