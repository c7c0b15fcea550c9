// The tables. What each rule is for stands beside it; everything else ends the process.
#include <asm/prctl.h>
#include <asm/unistd.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <cerrno>

#include "worker-kvm/confine/confine.h"
#include "worker-kvm/confine/rules.h"
#include "worker-kvm/kvm/device.h"

namespace vmmhost::kvm::confine {

namespace {

using seccomp::Rule;

constexpr std::uint64_t k32Bits = 0xffffffff;

// KJ's event loop and RPC over sockets, log, counters, memory for messages.
Rules controlThread(pid_t pid) {
  Rules rules = {
      call(__NR_epoll_wait),
      call(__NR_epoll_pwait),
      call(__NR_epoll_ctl),
      call(__NR_read),
      call(__NR_write),
      call(__NR_readv),
      call(__NR_writev),
      call(__NR_recvmsg),  // descriptors come with messages
      call(__NR_recvfrom),
      call(__NR_pread64),
      call(__NR_lseek),  // headers of kernel and initrd
      call(__NR_close),
      call(__NR_shutdown),
      callWith(__NR_fcntl, 1, F_GETFL),
      callWith(__NR_fcntl, 1, F_GETFD),
      callWith(__NR_fcntl, 1, F_SETFD),
      call(__NR_eventfd2),  // for the library to keep instead of a descriptor that came, see ipc/rpc/received.h
      callWith(__NR_tgkill, 0, static_cast<std::uint32_t>(pid)),  // kicks virtual CPUs; abort()
      call(__NR_timerfd_settime),
  };
  append(rules, heap());
  append(rules, everyThread());
  return rules;
}

// The state of parked virtual CPUs, and what of the VM is put back at a reset.
Rules machineState() {
  return {
      request(KVM_GET_REGS),
      request(KVM_SET_REGS),
      request(KVM_SET_SREGS),
      request(KVM_SET_FPU),
      request(KVM_SET_DEBUGREGS),
      request(KVM_SET_VCPU_EVENTS),
      request(KVM_SET_MP_STATE),
      request(KVM_SET_LAPIC),
      request(kSetMsrs),
      request(KVM_SET_IRQCHIP),
      request(KVM_SET_PIT2),
      // Interrupts and doorbells, as a guest places them; to eventfds only.
      request(KVM_IRQFD),
      request(kSetGsiRouting),
      request(KVM_IOEVENTFD),
      request(KVM_KVMCLOCK_CTRL),
      call(__NR_poll),
  };
}

Rules machineCreation() {
  return {
      request(KVM_GET_API_VERSION),
      request(KVM_CHECK_EXTENSION),
      request(KVM_GET_VCPU_MMAP_SIZE),
      request(kGetSupportedCpuid),
      request(KVM_CREATE_VM),
      request(KVM_SET_IDENTITY_MAP_ADDR),
      request(KVM_SET_TSS_ADDR),
      request(KVM_SET_USER_MEMORY_REGION),
      request(KVM_ENABLE_CAP),
      request(KVM_CREATE_IRQCHIP),
      request(KVM_GET_IRQCHIP),
      request(KVM_CREATE_PIT2),
      request(KVM_GET_PIT2),
      request(KVM_CREATE_VCPU),
      request(kSetCpuid2),
      request(KVM_GET_SREGS),
      request(KVM_GET_LAPIC),
      request(KVM_RUN),
      call(__NR_timerfd_create),
      callWith(__NR_newfstatat, 3, AT_EMPTY_PATH),
      callWith(__NR_fcntl, 1, F_GET_SEALS),      // the page of counters
      callWith(__NR_madvise, 2, MADV_HUGEPAGE),  // guest memory
      callWithout(__NR_mmap, 2, PROT_EXEC),      // counters, kvm_run and shared guest memory are shared mappings
      // pthread_create, exactly: neither a process nor a namespace comes of it.
      callWith(__NR_clone, 0,
               CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
                   CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID),
      call(__NR_set_robust_list),
      call(__NR_rseq),
      call(__NR_rt_sigaction),
      callWith(__NR_prctl, 0, PR_SET_NAME),
      callWith(__NR_seccomp, 0, SECCOMP_SET_MODE_FILTER),
  };
}

// What the threads of devices do on top of reading and writing eventfds: their own filters, which lie over this one,
// say on which descriptors. A ring is mapped and given its file while the process is created; the base filter names
// them.
Rules deviceThreads() {
  Rules rules = {
      call(__NR_preadv),
      call(__NR_pwritev),
      callWith(__NR_pwritev2, 5, RWF_DSYNC),
      call(__NR_fdatasync),
      callWith(__NR_fallocate, 1, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE),
      {__NR_io_uring_enter, {{3, k32Bits & ~std::uint64_t{IORING_ENTER_GETEVENTS}, 0}, {4, ~std::uint64_t{0}, 0}}},
      callWith(__NR_io_uring_register, 1, IORING_REGISTER_FILES_UPDATE),
      call(__NR_getrandom),
      {__NR_sendto, {{3, k32Bits, MSG_NOSIGNAL | MSG_DONTWAIT}, {4, ~std::uint64_t{0}, 0}}},
      {__NR_setsockopt, {{1, k32Bits, SOL_SOCKET}, {2, k32Bits, SO_PEEK_OFF}}},
      request(TUNSETOFFLOAD),  // the first thread of a network card
  };
  return rules;
}

// A C library that knows clone3 goes on with clone.
std::vector<seccomp::ErrnoRule> withoutClone3() {
  return {{__NR_clone3, ENOSYS}};
}

}  // namespace

seccomp::Policy creationPolicy() {
  // The process id is not needed: the base filter stands, and the final filter has it.
  Rules rules = controlThread(0);
  append(rules, {call(__NR_tgkill)});
  append(rules, machineState());
  append(rules, machineCreation());
  append(rules, deviceThreads());
  return {"kvm-creation", std::move(rules), withoutClone3()};
}

seccomp::Policy vcpuPolicy(int vcpuDescriptor, std::span<const int> signalDescriptors) {
  Rules rules = {
      {__NR_ioctl,
       {{0, k32Bits, static_cast<std::uint32_t>(vcpuDescriptor)}, {1, k32Bits, KVM_RUN}, {2, ~std::uint64_t{0}, 0}}},
  };
  for (const int descriptor : signalDescriptors) {
    rules.push_back(callWith(__NR_write, 0, static_cast<std::uint32_t>(descriptor)));
  }
  append(rules, everyThread());
  append(rules, heap());
  return {"kvm-vcpu", std::move(rules), {}};
}

seccomp::Policy loaderPolicy(std::span<const int> files, int signalDescriptor) {
  Rules rules = {callOn(__NR_write, signalDescriptor)};
  for (const int file : files) {
    rules.push_back(callOn(__NR_pread64, file));
  }
  append(rules, everyThread());
  append(rules, heap());
  return {"kvm-loader", std::move(rules), {}};
}

seccomp::Policy controlPolicy(pid_t pid) {
  Rules rules = controlThread(pid);
  append(rules, machineState());
  return {"kvm-control", std::move(rules), {}};
}

}  // namespace vmmhost::kvm::confine
