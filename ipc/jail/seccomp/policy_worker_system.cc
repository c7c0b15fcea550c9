// For a worker that starts programs of a read-only system root, such as qemu-system-x86_64 with a translating
// accelerator: files, processes, executable memory. No sockets but pairs, no locks, modes or owners, no namespaces.
//
// What these programs try and can do without fails with an errno; measured with QEMU 7.2 under this filter.
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <cerrno>

#include "ipc/jail/seccomp/call_table.h"

namespace vmmhost::seccomp {
namespace {

void addMemory(Policy& policy) {
  allowIf(policy, __NR_mmap, {without(3, kUnboundedMemory)});
  failWith(policy, EPERM, {__NR_mmap});
  // What QEMU advises of its guest's memory, but for KSM: whether pages of two VMs are equal shows in their timing.
  allowValues(policy, __NR_madvise, 2,
              {MADV_WILLNEED, MADV_REMOVE, MADV_DONTFORK, MADV_DOFORK, MADV_NOHUGEPAGE, MADV_DONTDUMP, MADV_DODUMP});
  allow(policy, {__NR_mprotect, __NR_membarrier, __NR_get_mempolicy, __NR_msync});
  failWith(policy, EINVAL, {__NR_memfd_create});
  failWith(policy, EPERM, {__NR_set_mempolicy, __NR_mbind, __NR_mlock, __NR_mlock2, __NR_mlockall});
}

}  // namespace

void addOwnOfSystem(Policy& policy, const BaseParameters& parameters) {
  addMemory(policy);
  addGivingBack(policy);  // but no durable writes by pwritev2
  // QEMU asks what it was given, and sets the size of the header to what its guest has agreed on: a size of the frames
  // that pass between the two, which the host sets anew whenever it opens the device.
  allowValues(policy, __NR_ioctl, 1, {TUNGETIFF, TUNGETVNETHDRSZ, TUNSETVNETHDRSZ});
  allowValues(policy, __NR_ioctl, 1, {BLKGETSIZE64, BLKSSZGET, BLKPBSZGET, BLKROGET, BLKFLSBUF});
  if (parameters.makesMemoryFiles) {
    addUnsealedMemoryFiles(policy);
  }
  if (parameters.makesEpolls) {
    allow(policy, {kEpollCreate});
  } else {
    failWith(policy, EMFILE, {kEpollCreate, __NR_epoll_create1});  // QEMU does without, and polls
  }
}

}  // namespace vmmhost::seccomp
