// For a static executable in an empty root: everything that it works with was handed to it.
#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>

#include <cerrno>

#include "ipc/seccomp/call_table.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

namespace vmmhost::seccomp {

Policy workerStatic(const BaseParameters& parameters) {
  Policy policy;
  policy.name = "worker-static";
  addThreadsAndMemoryBasics(policy);
  addEventLoop(policy);
  addDescriptorInput(policy);
  addSelfConfinement(policy);
  addExecutable(policy, parameters);
  addKvm(policy);
  addTap(policy);
  addDiskInput(policy, parameters);

  // No memory ever becomes executable: the kernel maps a static executable's code itself, at exec. Shared anonymous
  // memory would escape the limits on private data, so that only descriptors are mapped shared.
  allowIf(policy, __NR_mmap, {without(2, PROT_EXEC), ArgCheck{3, MAP_TYPE | kUnboundedMemory, MAP_PRIVATE}});
  allowIf(policy, __NR_mmap, {without(2, PROT_EXEC), without(3, MAP_ANONYMOUS | kUnboundedMemory)});
  allowIf(policy, __NR_mprotect, {without(2, PROT_EXEC)});

  // Guest memory that something shares. Its size is set by writing the last byte: ftruncate would also shrink disks.
  // Kernels before 6.3 do not know MFD_NOEXEC_SEAL; nothing here executes a descriptor anyhow.
  allowIf(policy, __NR_memfd_create, {ArgCheck{1, 0xffffffffu & ~(MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL), MFD_CLOEXEC}});
  allowValues(policy, __NR_fcntl, 1, {F_ADD_SEALS, F_GET_SEALS});

  // fstat() as glibc makes it. A path that comes with it leads nowhere in an empty root.
  allowIf(policy, __NR_newfstatat, {equals32(3, AT_EMPTY_PATH)});
  // glibc looks for /proc/self/exe before main and does without.
  failWith(policy, ENOENT, {kReadlink, __NR_readlinkat});
  return policy;
}

}  // namespace vmmhost::seccomp
