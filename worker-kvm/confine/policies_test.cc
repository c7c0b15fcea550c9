#include <asm/unistd.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/sockios.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <functional>
#include <locale>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "worker-kvm/confine/confine.h"
#include "worker-kvm/io/event_thread.h"
#include "worker-kvm/kvm/device.h"

namespace vmmhost::kvm::confine {
namespace {

constexpr int kVcpu = 9;
constexpr int kWake = 11;
constexpr pid_t kPid = 77;

class Evaluated {
 public:
  explicit Evaluated(const seccomp::Policy& policy) : program_(seccomp::compile(policy)) {}

  bool allows(long number, std::initializer_list<std::uint64_t> arguments = {}) const {
    seccomp_data call{};
    call.nr = static_cast<int>(number);
    call.arch = AUDIT_ARCH_X86_64;
    std::copy(arguments.begin(), arguments.end(), call.args);
    return seccomp::evaluate(program_, call) == SECCOMP_RET_ALLOW;
  }

 private:
  std::vector<sock_filter> program_;
};

struct Named {
  const char* name;
  long number;
  std::array<std::uint64_t, 6> arguments{};
};

// What no stage may do.
const std::vector<Named> kNever = {
    {"open", __NR_open},
    {"openat", __NR_openat},
    {"openat2", __NR_openat2},
    {"creat", __NR_creat},
    {"socket", __NR_socket},
    {"connect", __NR_connect},
    {"bind", __NR_bind},
    {"accept4", __NR_accept4},
    {"socketpair", __NR_socketpair},
    {"sendmsg", __NR_sendmsg},
    {"sendto", __NR_sendto},
    {"execve", __NR_execve},
    {"execveat", __NR_execveat},
    {"fork", __NR_fork},
    {"vfork", __NR_vfork},
    {"clone of a process", __NR_clone, {SIGCHLD}},
    {"clone3", __NR_clone3},
    {"unshare", __NR_unshare},
    {"setns", __NR_setns},
    {"mount", __NR_mount},
    {"ptrace", __NR_ptrace},
    {"process_vm_readv", __NR_process_vm_readv},
    {"bpf", __NR_bpf},
    {"io_uring_setup", __NR_io_uring_setup},
    {"io_uring_register of buffers", __NR_io_uring_register, {4, IORING_REGISTER_BUFFERS}},
    {"io_uring_register of restrictions", __NR_io_uring_register, {4, IORING_REGISTER_RESTRICTIONS}},
    {"io_uring_enter with a signal mask", __NR_io_uring_enter, {4, 1, 0, 0, 0x1000, 8}},
    {"io_uring_enter of a registered ring", __NR_io_uring_enter, {4, 1, 0, 1u << 4}},
    {"fallocate", __NR_fallocate, {5, 0}},
    {"fallocate that zeroes", __NR_fallocate, {5, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE}},
    {"fallocate behind the end", __NR_fallocate, {5, FALLOC_FL_KEEP_SIZE}},
    {"fallocate that makes shorter", __NR_fallocate, {5, FALLOC_FL_COLLAPSE_RANGE}},
    {"pwritev2 that appends", __NR_pwritev2, {5, 0x1000, 1, 0, 0, RWF_APPEND}},
    {"userfaultfd", __NR_userfaultfd},
    {"epoll_create1", __NR_epoll_create1},
    {"fcntl F_DUPFD_CLOEXEC", __NR_fcntl, {5, F_DUPFD_CLOEXEC}},
    {"memfd_create", __NR_memfd_create},
    {"pwrite64", __NR_pwrite64},
    {"fcntl F_ADD_SEALS", __NR_fcntl, {5, F_ADD_SEALS}},
    {"perf_event_open", __NR_perf_event_open},
    {"kill", __NR_kill},
    {"fchmod", __NR_fchmod},
    {"fchown", __NR_fchown},
    {"ftruncate", __NR_ftruncate},
    {"fsetxattr", __NR_fsetxattr},
    {"flock", __NR_flock},
    {"fcntl F_SETLEASE", __NR_fcntl, {5, F_SETLEASE}},
    {"fcntl F_OFD_SETLK", __NR_fcntl, {5, F_OFD_SETLK}},
    {"fcntl F_SETFL", __NR_fcntl, {5, F_SETFL}},
    {"mmap executable", __NR_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS}},
    {"mprotect executable", __NR_mprotect, {0, 4096, PROT_READ | PROT_EXEC}},
    {"prctl PR_SET_DUMPABLE", __NR_prctl, {PR_SET_DUMPABLE, 1}},
    {"ioctl TIOCSTI", __NR_ioctl, {0, 0x5412}},
    {"ioctl KVM_CREATE_DEVICE", __NR_ioctl, {8, KVM_CREATE_DEVICE}},
    {"ioctl TUNSETIFF", __NR_ioctl, {8, TUNSETIFF}},
    {"ioctl TUNSETPERSIST", __NR_ioctl, {8, TUNSETPERSIST}},
    {"ioctl TUNSETOWNER", __NR_ioctl, {8, TUNSETOWNER}},
    {"ioctl TUNSETGROUP", __NR_ioctl, {8, TUNSETGROUP}},
    {"ioctl TUNSETQUEUE", __NR_ioctl, {8, TUNSETQUEUE}},
    {"ioctl TUNSETCARRIER", __NR_ioctl, {8, TUNSETCARRIER}},
    {"ioctl TUNSETSNDBUF", __NR_ioctl, {8, TUNSETSNDBUF}},
    {"ioctl TUNATTACHFILTER", __NR_ioctl, {8, TUNATTACHFILTER}},
    {"ioctl SIOCSIFHWADDR", __NR_ioctl, {8, SIOCSIFHWADDR}},
};

// What ends with creation.
const std::vector<Named> kOnlyForCreation = {
    {"KVM_CREATE_VM", __NR_ioctl, {5, KVM_CREATE_VM}},
    {"KVM_CREATE_VCPU", __NR_ioctl, {8, KVM_CREATE_VCPU}},
    {"KVM_CREATE_IRQCHIP", __NR_ioctl, {8, KVM_CREATE_IRQCHIP}},
    {"KVM_ENABLE_CAP", __NR_ioctl, {8, KVM_ENABLE_CAP}},
    {"KVM_SET_USER_MEMORY_REGION", __NR_ioctl, {8, KVM_SET_USER_MEMORY_REGION}},
    {"KVM_SET_CPUID2", __NR_ioctl, {kVcpu, kSetCpuid2}},
    {"timerfd_create", __NR_timerfd_create},
    {"preadv", __NR_preadv},
    {"pwritev", __NR_pwritev},
    {"pwritev2", __NR_pwritev2, {5, 0x1000, 1, 0, 0, RWF_DSYNC}},
    {"fdatasync", __NR_fdatasync},
    {"fallocate that punches holes", __NR_fallocate, {5, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE}},
    {"io_uring_enter", __NR_io_uring_enter, {4, 8, 1, IORING_ENTER_GETEVENTS, 0, 8}},
    {"io_uring_register of a file", __NR_io_uring_register, {4, IORING_REGISTER_FILES_UPDATE, 0x1000, 1}},
    {"getrandom", __NR_getrandom},
    {"TUNSETOFFLOAD", __NR_ioctl, {8, TUNSETOFFLOAD}},
    {"shared mapping", __NR_mmap, {0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, 8}},
    {"thread",
     __NR_clone,
     {CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
      CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID}},
    {"seccomp", __NR_seccomp, {SECCOMP_SET_MODE_FILTER}},
};

// What the control thread does for a guest that places interrupts and doorbells.
const std::vector<Named> kForPlacing = {
    {"KVM_IRQFD", __NR_ioctl, {8, KVM_IRQFD}},
    {"KVM_IOEVENTFD", __NR_ioctl, {8, KVM_IOEVENTFD}},
    {"KVM_SET_GSI_ROUTING", __NR_ioctl, {8, kSetGsiRouting}},
};

bool allows(const Evaluated& policy, const Named& call) {
  const auto& a = call.arguments;
  return policy.allows(call.number, {a[0], a[1], a[2], a[3], a[4], a[5]});
}

TEST(Policies, nothingThatReachesBeyondTheVm_isAllowedAtAnyStage) {
  const Evaluated creation(creationPolicy());
  const Evaluated control(controlPolicy(kPid));
  const Evaluated vcpu(vcpuPolicy(kVcpu, std::array{kWake}));
  for (const Named& call : kNever) {
    EXPECT_FALSE(allows(creation, call)) << "creation: " << call.name;
    EXPECT_FALSE(allows(control, call)) << "control: " << call.name;
    EXPECT_FALSE(allows(vcpu, call)) << "vcpu: " << call.name;
  }
}

TEST(Policies, placingInterrupts_isTheControlThreadsAlone) {
  const Evaluated control(controlPolicy(kPid));
  const Evaluated vcpu(vcpuPolicy(kVcpu, std::array{kWake}));
  for (const Named& call : kForPlacing) {
    EXPECT_TRUE(allows(control, call)) << call.name;
    EXPECT_FALSE(allows(vcpu, call)) << call.name;
  }
}

TEST(Policies, whatCreationNeeds_endsWithIt) {
  const Evaluated creation(creationPolicy());
  const Evaluated control(controlPolicy(kPid));
  const Evaluated vcpu(vcpuPolicy(kVcpu, std::array{kWake}));
  for (const Named& call : kOnlyForCreation) {
    EXPECT_TRUE(allows(creation, call)) << "creation: " << call.name;
    EXPECT_FALSE(allows(control, call)) << "control: " << call.name;
    EXPECT_FALSE(allows(vcpu, call)) << "vcpu: " << call.name;
  }
}

TEST(Policies, vcpuThread_runsItsOwnCpuAndSignals) {
  const Evaluated vcpu(vcpuPolicy(kVcpu, std::array{kWake, 12}));
  EXPECT_TRUE(vcpu.allows(__NR_ioctl, {kVcpu, KVM_RUN, 0}));
  EXPECT_FALSE(vcpu.allows(__NR_ioctl, {kVcpu + 1, KVM_RUN, 0}));
  EXPECT_FALSE(vcpu.allows(__NR_ioctl, {kVcpu, KVM_RUN, 1}));
  EXPECT_FALSE(vcpu.allows(__NR_ioctl, {kVcpu, KVM_GET_REGS, 0}));
  EXPECT_FALSE(vcpu.allows(__NR_ioctl, {kVcpu, KVM_SET_REGS, 0}));
  EXPECT_TRUE(vcpu.allows(__NR_write, {kWake}));
  EXPECT_TRUE(vcpu.allows(__NR_write, {12}));
  EXPECT_FALSE(vcpu.allows(__NR_write, {2}));  // the log
  EXPECT_FALSE(vcpu.allows(__NR_write, {3}));  // the host
  EXPECT_FALSE(vcpu.allows(__NR_read, {3}));
  EXPECT_FALSE(vcpu.allows(__NR_mmap, {0, 4096, PROT_READ, MAP_PRIVATE, 5}));
  EXPECT_FALSE(vcpu.allows(__NR_mmap, {0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS}));
  EXPECT_FALSE(vcpu.allows(__NR_close, {3}));
  EXPECT_FALSE(vcpu.allows(__NR_tgkill, {kPid}));
  EXPECT_TRUE(vcpu.allows(__NR_futex));
  EXPECT_TRUE(vcpu.allows(__NR_rt_sigreturn));
  EXPECT_TRUE(vcpu.allows(__NR_exit));
}

TEST(Policies, loader_readsTheBootFilesAndSignals) {
  const Evaluated loader(loaderPolicy(std::array{20, 21}, kWake));
  EXPECT_TRUE(loader.allows(__NR_pread64, {20}));
  EXPECT_TRUE(loader.allows(__NR_pread64, {21}));
  EXPECT_FALSE(loader.allows(__NR_pread64, {22}));  // a disk
  EXPECT_FALSE(loader.allows(__NR_read, {3}));
  EXPECT_TRUE(loader.allows(__NR_write, {kWake}));
  EXPECT_FALSE(loader.allows(__NR_write, {3}));  // the host
  EXPECT_TRUE(loader.allows(__NR_madvise, {0, 4096, MADV_DONTNEED}));
  EXPECT_FALSE(loader.allows(__NR_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS}));
  EXPECT_FALSE(loader.allows(__NR_mmap, {0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS}));
  EXPECT_FALSE(loader.allows(__NR_mmap, {0, 4096, PROT_READ, MAP_PRIVATE, 20}));
  EXPECT_FALSE(loader.allows(__NR_ioctl, {kVcpu, KVM_RUN, 0}));
  for (const Named& call : kNever) {
    EXPECT_FALSE(allows(loader, call)) << call.name;
  }
}

TEST(Policies, controlThread_drivesTheVmAndReachesItsOwnThreadsOnly) {
  const Evaluated control(controlPolicy(kPid));
  for (const auto request : std::initializer_list<std::uint64_t>{KVM_GET_REGS, KVM_SET_REGS, KVM_SET_SREGS,
                                                                 KVM_SET_MP_STATE, KVM_SET_LAPIC, kSetMsrs}) {
    EXPECT_TRUE(control.allows(__NR_ioctl, {kVcpu, request})) << request;
  }
  EXPECT_FALSE(control.allows(__NR_ioctl, {kVcpu, KVM_RUN}));
  EXPECT_TRUE(control.allows(__NR_tgkill, {kPid}));
  EXPECT_FALSE(control.allows(__NR_tgkill, {1000}));
  EXPECT_TRUE(control.allows(__NR_mmap, {0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS}));
  EXPECT_TRUE(control.allows(__NR_epoll_wait));
  EXPECT_TRUE(control.allows(__NR_writev));
}

#ifndef VMMHOST_SANITIZED
// What an allocator and the C++ library do where a thread uses them first.
void allocate() {
  std::vector<std::unique_ptr<char[]>> blocks;
  for (std::size_t bytes = 16; bytes < std::size_t{4} << 20; bytes *= 2) {
    blocks.push_back(std::make_unique<char[]>(bytes));
  }
  blocks.clear();
  try {
    std::ostringstream text;
    text.imbue(std::locale::classic());
    text << 1.5 << std::string(1 << 20, 'x');
    throw std::runtime_error(text.str());
  } catch (const std::exception&) {
  }
}

// From a thread that is confined already.
void* allocateUnder(void* filter) {
  if (seccomp::install(*static_cast<const std::vector<sock_filter>*>(filter), false) != 0) {
    ::_exit(2);
  }
  allocate();
  return nullptr;
}

// In a process of its own, which has one heap as a worker has.
void expectGoodEnd(const std::string& what, const std::function<void()>& use) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::mallopt(M_ARENA_MAX, 1);  // as serve() has it
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    use();
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << what << (WIFSIGNALED(status) ? ": ended by a signal" : "");
}

void expectThatThreadsMayAllocate(const seccomp::Policy& policy) {
  std::vector<sock_filter> filter = seccomp::compile(policy);
  expectGoodEnd(std::string(policy.name), [&filter] {
    for (int round = 0; round < 20; ++round) {
      pthread_t thread{};
      if (::pthread_create(&thread, nullptr, allocateUnder, &filter) != 0 || ::pthread_join(thread, nullptr) != 0) {
        ::_exit(3);
      }
    }
  });
}

TEST(Policies, threadOfAVirtualCpu_mayAllocate) {
  expectThatThreadsMayAllocate(vcpuPolicy(kVcpu, std::array{kWake}));
}

TEST(Policies, threadThatLoads_mayAllocate) {
  expectThatThreadsMayAllocate(loaderPolicy(std::array{20, 21}, kWake));
}

TEST(Policies, controlThread_mayAllocate) {
  expectThatThreadsMayAllocate(controlPolicy(kPid));
}

// With no rules of a device's own: what is left is what each has.
TEST(Policies, threadsOfDevices_mayAllocate) {
  expectGoodEnd("threads of devices", [] {
    std::vector<std::unique_ptr<io::EventThread>> threads;
    for (int device = 0; device < 20; ++device) {
      threads.push_back(std::make_unique<io::EventThread>("device", Rules()));
    }
    for (const auto& thread : threads) {
      thread->post(allocate);
    }
  });
}
#endif

// The kernel's verdict, not only the evaluator's.
TEST(Policies, installedControlFilter_endsTheProcessOnOpen) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (seccomp::install(seccomp::compile(controlPolicy(::getpid())), false) != 0) {
      ::_exit(2);
    }
    ::open("/dev/null", O_RDONLY);
    ::_exit(1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << status;
  EXPECT_EQ(WTERMSIG(status), SIGSYS);
}

}  // namespace
}  // namespace vmmhost::kvm::confine
