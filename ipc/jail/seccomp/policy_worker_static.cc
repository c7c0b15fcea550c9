// For a static executable in an empty root: everything that it works with was handed to it.
#include <fcntl.h>
#include <sys/mman.h>

#include <cerrno>

#include "ipc/jail/seccomp/call_table.h"

namespace vmmhost::seccomp {

Policy workerStatic(const BaseParameters& parameters) {
  Policy policy;
  policy.name = "worker-static";
  addThreadsAndMemoryBasics(policy);
  addEventLoop(policy, parameters);
  addDescriptorInput(policy);
  addSelfConfinement(policy);
  addExecutable(policy, parameters);
  addKvm(policy);
  addTap(policy);
  addDiskInput(policy, parameters);

  // An epoll instance watches each descriptor of a file anew: where their number is to be bounded by that of the files,
  // there are no duplicates.
  if (parameters.makesEpolls) {
    allowValues(policy, __NR_fcntl, 1, {F_DUPFD_CLOEXEC});
  }

  // No memory ever becomes executable: the kernel maps a static executable's code itself, at exec. Shared anonymous
  // memory would escape the limits on private data, so that only descriptors are mapped shared.
  allowIf(policy, __NR_mmap, {without(2, PROT_EXEC), ArgCheck{3, MAP_TYPE | kUnboundedMemory, MAP_PRIVATE}});
  allowIf(policy, __NR_mmap, {without(2, PROT_EXEC), without(3, MAP_ANONYMOUS | kUnboundedMemory)});
  allowIf(policy, __NR_mprotect, {without(2, PROT_EXEC)});

  if (parameters.makesMemoryFiles) {
    addMemoryFiles(policy);
  }
  allowValues(policy, __NR_fcntl, 1, {F_ADD_SEALS, F_GET_SEALS});  // of what it was given, which has all its seals

  // fstat() as glibc makes it. A path that comes with it leads nowhere in an empty root.
  allowIf(policy, __NR_newfstatat, {equals32(3, AT_EMPTY_PATH)});
  // glibc looks for /proc/self/exe before main and does without.
  failWith(policy, ENOENT, {kReadlink, __NR_readlinkat});
  return policy;
}

}  // namespace vmmhost::seccomp
