// For sanitizer builds, whose runtimes cannot be linked statically: the static worker's policy, and what the dynamic
// loader and the runtimes of ASan, UBSan and TSan ask for. Not for production: it maps executable memory.
#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cerrno>

#include "ipc/jail/seccomp/call_table.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

namespace vmmhost::seccomp {

Policy workerDynamic(const BaseParameters& parameters) {
  Policy policy = workerStatic(parameters);
  policy.name = "worker-dynamic";

  constexpr std::uint64_t kWriting = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND | (O_TMPFILE & ~O_DIRECTORY);
  allowIf(policy, __NR_openat, {without(2, kWriting)});
  allowIf(policy, kOpen, {without(1, kWriting)});
  failWith(policy, EROFS, {__NR_openat, kOpen, kUnlink, __NR_unlinkat});
  allow(policy, {
                    __NR_newfstatat,
                    kStat,
                    kLstat,
                    __NR_statx,
                    kAccess,
                    __NR_faccessat,
                    __NR_getdents64,
                    __NR_getcwd,
                    kReadlink,  // a runtime asks for the name of its executable and complains in the log without one
                    __NR_readlinkat,
                    __NR_uname,
                    __NR_mprotect,
                    __NR_dup,
                    __NR_pipe2,
                    kPipe,
                    __NR_mincore,
                    __NR_getppid,
                });
  allowIf(policy, __NR_mmap, {without(3, kUnboundedMemory)});
  allowValues(policy, __NR_madvise, 2, {MADV_DONTDUMP, MADV_DODUMP, MADV_NOHUGEPAGE});  // shadow memory
  // Runtimes lower these two for themselves and give up if they cannot; raising takes a capability.
  allowIf(policy, __NR_prlimit64, {equals32(0, 0), equals32(1, RLIMIT_CORE)});
  allowIf(policy, __NR_prlimit64, {equals32(0, 0), equals32(1, RLIMIT_STACK)});
  // Leak checking and symbolizing start processes: refused, and both say so and go on or end.
  failWith(policy, EPERM, {__NR_clone, __NR_personality, kFork, kVfork});
  failWith(policy, EINVAL, {__NR_prctl});
  // Its memory has a path where there is a /proc, and is not to be a program. Without a path nothing can execute it,
  // and kernels before 6.3, which do not know that seal, serve as well.
  for (Rule& rule : policy.allow) {
    if (rule.number == __NR_memfd_create && parameters.hasProc) {
      rule.checks = {ArgCheck{1, 0xffffffffu & ~MFD_ALLOW_SEALING, MFD_CLOEXEC | MFD_NOEXEC_SEAL}};
    }
  }
  failWith(policy, EINVAL, {__NR_memfd_create});
  return policy;
}

}  // namespace vmmhost::seccomp
