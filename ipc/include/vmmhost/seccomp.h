// Seccomp policies as tables: compiled to BPF, evaluated in tests, installed by the spawn stub and by workers.
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
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

// A named piece of a policy, of which a launch asks for a set. What every policy has is none: threads, heap, the event
// loop, reading and writing descriptors that it holds, confining itself further, and the one execveat.
struct Grant {
  std::string_view name;
  std::uint64_t bit = 0;
  std::string_view allows;  // one sentence
};

// Their bits, which are those of the plugin interface (VMMHOST_GRANT_*) and stay.
namespace grant {
inline constexpr std::uint64_t kKvm = 1u << 0;
inline constexpr std::uint64_t kTap = 1u << 1;
inline constexpr std::uint64_t kRings = 1u << 2;
inline constexpr std::uint64_t kDisks = 1u << 3;
inline constexpr std::uint64_t kVsockSockets = 1u << 4;
inline constexpr std::uint64_t kAccept = 1u << 5;
inline constexpr std::uint64_t kMemoryFiles = 1u << 6;
inline constexpr std::uint64_t kEpolls = 1u << 7;
inline constexpr std::uint64_t kFiles = 1u << 8;
inline constexpr std::uint64_t kTemporaryFiles = 1u << 9;
inline constexpr std::uint64_t kLoader = 1u << 10;
inline constexpr std::uint64_t kPrograms = 1u << 11;
inline constexpr std::uint64_t kPairs = 1u << 12;
}  // namespace grant

// The one table of them: docs/plugins.md is compared with it.
std::span<const Grant> grants();
// "kvm, disks"; "none". Bits that are no grant's are called by their number.
std::string namesOf(std::uint64_t bits);

// The policy that has these grants. A set allows what one of its grants allows, and no more; where several of them give
// a call an errno, the basis and then the first in the order of grants() decides. Of the parameters it looks at the
// executable and the rings: the others are for names. Throws Error(kInvalidArgument) for bits that are no grant's.
Policy composedPolicy(std::uint64_t grants, const BaseParameters& parameters);

// Which policy a process gets: one that has a name, or a set of grants.
class PolicyChoice {
 public:
  PolicyChoice(std::string name) : choice_(std::move(name)) {}  // of basePolicy(), which refuses others
  PolicyChoice(const char* name) : choice_(std::string(name)) {}
  static PolicyChoice ofGrants(std::uint64_t bits) { return PolicyChoice(bits); }

  bool isComposed() const { return std::holds_alternative<std::uint64_t>(choice_); }
  // What it grants, whichever it is; what a policy with a name allows besides is its own.
  std::uint64_t grants() const;
  bool has(std::uint64_t grant) const { return (grants() & grant) == grant; }
  std::string describe() const;  // "worker-static", "grants: kvm, disks"
  Policy policy(const BaseParameters& parameters) const;

  bool operator==(const PolicyChoice&) const = default;
  bool operator==(std::string_view name) const {
    const auto* own = std::get_if<std::string>(&choice_);
    return own != nullptr && *own == name;
  }
  bool operator==(const char* name) const { return *this == std::string_view(name); }

 private:
  explicit PolicyChoice(std::uint64_t bits) : choice_(bits) {}
  std::variant<std::string, std::uint64_t> choice_;
};

// For a process that starts with `capabilities` (bits) over namespaces of its own (spawn's Jail::setupCapabilities):
// what giving them up takes, and a netlink route socket where CAP_NET_ADMIN is among them. endSetup()
// (vmmhost/setup_stage.h) takes it away again.
void addSetupStage(Policy& policy, std::uint64_t capabilities);

// For a process that may execute the files on `count` descriptors from `first` on (spawn's Request::programs): that,
// children, waiting for them and ending them.
void addProgramsByDescriptor(Policy& policy, int first, unsigned count);

}  // namespace vmmhost::seccomp
