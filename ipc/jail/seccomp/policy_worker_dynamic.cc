// For sanitizer builds, whose runtimes cannot be linked statically: the static worker's policy, and what the dynamic
// loader and the runtimes of ASan, UBSan and TSan ask for. Not for production: it maps executable memory.
#include <sys/mman.h>
#include <sys/resource.h>

#include <cerrno>

#include "ipc/jail/seccomp/call_table.h"

namespace vmmhost::seccomp {

void addOwnOfDynamic(Policy& policy, const BaseParameters& parameters) {
  allow(policy, {
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
  if (parameters.makesMemoryFiles && !parameters.hasProc) {
    addUnsealedMemoryFiles(policy);
  }
  failWith(policy, EINVAL, {__NR_memfd_create});
}

}  // namespace vmmhost::seccomp
