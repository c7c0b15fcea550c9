// Helpers and shared groups for writing policies as tables.
#pragma once

#include <sys/mman.h>
#include <sys/syscall.h>

#include <cstdint>
#include <initializer_list>
#include <vector>

#include "vmmhost/seccomp.h"

namespace vmmhost::seccomp {

// Calls that younger architectures do not have are kAbsent there, and rules for them are left out.
inline constexpr std::uint32_t kAbsent = ~std::uint32_t{0};
#if defined(__x86_64__)
inline constexpr std::uint32_t kAccess = __NR_access;
inline constexpr std::uint32_t kArchPrctl = __NR_arch_prctl;
inline constexpr std::uint32_t kDup2 = __NR_dup2;
inline constexpr std::uint32_t kEpollCreate = __NR_epoll_create;
inline constexpr std::uint32_t kEpollWait = __NR_epoll_wait;
inline constexpr std::uint32_t kFork = __NR_fork;
inline constexpr std::uint32_t kGetdents = __NR_getdents;
inline constexpr std::uint32_t kGetpgrp = __NR_getpgrp;
inline constexpr std::uint32_t kGetrlimit = __NR_getrlimit;
inline constexpr std::uint32_t kLstat = __NR_lstat;
inline constexpr std::uint32_t kMkdir = __NR_mkdir;
inline constexpr std::uint32_t kOpen = __NR_open;
inline constexpr std::uint32_t kPause = __NR_pause;
inline constexpr std::uint32_t kPipe = __NR_pipe;
inline constexpr std::uint32_t kPoll = __NR_poll;
inline constexpr std::uint32_t kReadlink = __NR_readlink;
inline constexpr std::uint32_t kRename = __NR_rename;
inline constexpr std::uint32_t kRmdir = __NR_rmdir;
inline constexpr std::uint32_t kSelect = __NR_select;
inline constexpr std::uint32_t kStat = __NR_stat;
inline constexpr std::uint32_t kTime = __NR_time;
inline constexpr std::uint32_t kUnlink = __NR_unlink;
inline constexpr std::uint32_t kVfork = __NR_vfork;
#else
inline constexpr std::uint32_t kAccess = kAbsent;
inline constexpr std::uint32_t kArchPrctl = kAbsent;
inline constexpr std::uint32_t kDup2 = kAbsent;
inline constexpr std::uint32_t kEpollCreate = kAbsent;
inline constexpr std::uint32_t kEpollWait = kAbsent;
inline constexpr std::uint32_t kFork = kAbsent;
inline constexpr std::uint32_t kGetdents = kAbsent;
inline constexpr std::uint32_t kGetpgrp = kAbsent;
inline constexpr std::uint32_t kGetrlimit = kAbsent;
inline constexpr std::uint32_t kLstat = kAbsent;
inline constexpr std::uint32_t kMkdir = kAbsent;
inline constexpr std::uint32_t kOpen = kAbsent;
inline constexpr std::uint32_t kPause = kAbsent;
inline constexpr std::uint32_t kPipe = kAbsent;
inline constexpr std::uint32_t kPoll = kAbsent;
inline constexpr std::uint32_t kReadlink = kAbsent;
inline constexpr std::uint32_t kRename = kAbsent;
inline constexpr std::uint32_t kRmdir = kAbsent;
inline constexpr std::uint32_t kSelect = kAbsent;
inline constexpr std::uint32_t kStat = kAbsent;
inline constexpr std::uint32_t kTime = kAbsent;
inline constexpr std::uint32_t kUnlink = kAbsent;
inline constexpr std::uint32_t kVfork = kAbsent;
#endif

// An argument that the kernel takes as int or unsigned int: it looks at 32 bits, so the check does.
constexpr ArgCheck equals32(std::uint8_t index, std::uint32_t value) {
  return ArgCheck{index, 0xffffffffu, value};
}
// An argument that the kernel takes as long or pointer.
constexpr ArgCheck equals64(std::uint8_t index, std::uint64_t value) {
  return ArgCheck{index, ~std::uint64_t{0}, value};
}
// None of `bits` is set; the others are free.
constexpr ArgCheck without(std::uint8_t index, std::uint64_t bits) {
  return ArgCheck{index, bits, 0};
}
// Only bits of `bits` are set in an argument of 32 bits.
constexpr ArgCheck only32(std::uint8_t index, std::uint32_t bits) {
  return ArgCheck{index, static_cast<std::uint32_t>(~bits), 0};
}

// Flags of mmap for memory that no limit of a worker counts: huge pages are the machine's, and what grows downwards is
// a stack to the kernel, of which RLIMIT_DATA knows nothing.
inline constexpr std::uint64_t kUnboundedMemory = MAP_HUGETLB | MAP_GROWSDOWN;

void allow(Policy& policy, std::initializer_list<std::uint32_t> numbers);
void allowIf(Policy& policy, std::uint32_t number, std::initializer_list<ArgCheck> checks);
// Allows `number` when its argument `index` (32 bits) is one of `values`.
void allowValues(Policy& policy, std::uint32_t number, std::uint8_t index, std::initializer_list<std::uint32_t> values);
void failWith(Policy& policy, int errnoValue, std::initializer_list<std::uint32_t> numbers);

// What every policy has: threads of its own process, heap, signals to itself, leaving; epoll, eventfd, signalfd,
// timers, clocks; reading, writing and asking about descriptors that it holds; memory that is not executable; prctl and
// seccomp as far as they take rights away; execveat on the one descriptor.
void addBasis(Policy& policy, const BaseParameters& parameters);
void addGivingBack(Policy& policy);  // holes in files, and nothing else that fallocate does

// The pieces that belong to these bits, in the order of grants().
void addPieces(Policy& policy, std::uint64_t grants, const BaseParameters& parameters);
// Where several pieces have an errno for one call, the first that was added decides: the basis, then the pieces in the
// order of grants().
void keepFirstErrnos(Policy& policy);

// What the policies that have names have besides the basis and their grants.
void addOwnOfStatic(Policy& policy, const BaseParameters& parameters);
void addOwnOfDynamic(Policy& policy, const BaseParameters& parameters);
void addOwnOfSystem(Policy& policy, const BaseParameters& parameters);
// Files of memory as workers of plugins up to 1.1 make them: Linux before 6.3 does not know MFD_NOEXEC_SEAL.
void addUnsealedMemoryFiles(Policy& policy);

}  // namespace vmmhost::seccomp
