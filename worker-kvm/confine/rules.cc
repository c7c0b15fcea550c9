#include "worker-kvm/confine/rules.h"

#include <asm/unistd.h>
#include <sys/mman.h>

namespace vmmhost::kvm::confine {

namespace {

constexpr std::uint64_t k32Bits = 0xffffffff;

}  // namespace

void append(Rules& rules, const Rules& more) {
  rules.insert(rules.end(), more.begin(), more.end());
}

seccomp::Rule call(std::uint32_t number) {
  return {number, {}};
}

seccomp::Rule callWith(std::uint32_t number, std::uint8_t argument, std::uint32_t value) {
  return {number, {{argument, k32Bits, value}}};
}

seccomp::Rule callWithout(std::uint32_t number, std::uint8_t argument, std::uint64_t bits) {
  return {number, {{argument, bits, 0}}};
}

seccomp::Rule request(unsigned long number) {
  return callWith(__NR_ioctl, 1, static_cast<std::uint32_t>(number));
}

seccomp::Rule callOn(std::uint32_t number, int descriptor) {
  return callWith(number, 0, static_cast<std::uint32_t>(descriptor));
}

Rules everyThread() {
  return {
      call(__NR_futex),           call(__NR_rt_sigreturn),
      call(__NR_rt_sigprocmask),  // pthread_exit, pthread_kill
      call(__NR_restart_syscall), call(__NR_exit),
      call(__NR_exit_group),      callWith(__NR_madvise, 2, MADV_DONTNEED),  // a thread gives its stack back
      call(__NR_getpid),          call(__NR_gettid),
      call(__NR_clock_gettime),  // where the vDSO has no clock
  };
}

Rules heap() {
  return {
      call(__NR_brk),
      call(__NR_munmap),
      call(__NR_mremap),
      callWith(__NR_madvise, 2, MADV_FREE),
      callWithout(__NR_mprotect, 2, PROT_EXEC),
      {__NR_mmap,
       {{2, PROT_EXEC, 0}, {3, MAP_TYPE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_GROWSDOWN, MAP_PRIVATE | MAP_ANONYMOUS}}},
  };
}

}  // namespace vmmhost::kvm::confine
