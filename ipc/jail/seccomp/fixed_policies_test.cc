// The policies that have names mean what they meant when they were written down: each call number, with a grid of
// arguments and every combination of parameters, has the same verdict as then. fixed_policies.inc holds digests of
// verdicts by policy and call number; it was made before the policies were composed of grants.
//
// A policy is not changed by making the digests anew: what a name allows is what plugins were built for.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/memfd.h>
#include <linux/sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "ipc/jail/seccomp/test_calls.h"
#include "vmmhost/rings.h"
#include "vmmhost/seccomp.h"

#if defined(__x86_64__)

namespace vmmhost::seccomp {
namespace {

using Values = std::vector<std::uint64_t>;

constexpr std::uint64_t kMinusOne = ~std::uint64_t{0};
constexpr std::uint64_t kHigh = std::uint64_t{1} << 32;
constexpr std::uint32_t kNumbers = 512;  // 470 of Linux 6.17, and some that do not exist

// What the policies look at, and what is next to it, with bits that the kernel does not look at and that it does.
std::map<std::uint32_t, std::array<Values, 6>> grid() {
  const Values anyFlags = {0, 1, kHigh, kMinusOne};
  const Values protections = {0,
                              PROT_READ,
                              PROT_READ | PROT_WRITE,
                              PROT_EXEC,
                              PROT_READ | PROT_EXEC,
                              PROT_READ | PROT_WRITE | PROT_EXEC,
                              kHigh | PROT_EXEC,
                              kMinusOne};
  const Values mappings = {0,
                           MAP_PRIVATE,
                           MAP_SHARED,
                           MAP_SHARED_VALIDATE,
                           MAP_PRIVATE | MAP_ANONYMOUS,
                           MAP_SHARED | MAP_ANONYMOUS,
                           MAP_PRIVATE | MAP_FIXED,
                           MAP_PRIVATE | MAP_DENYWRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN,
                           MAP_PRIVATE | MAP_GROWSDOWN,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB,
                           MAP_SHARED | MAP_HUGETLB,
                           kHigh | MAP_SHARED,
                           kMinusOne};
  const Values opening = {O_RDONLY,
                          O_RDONLY | O_CLOEXEC,
                          O_RDONLY | O_DIRECTORY,
                          O_PATH,
                          O_WRONLY,
                          O_RDWR,
                          O_CREAT,
                          O_TRUNC,
                          O_APPEND,
                          O_TMPFILE,
                          O_RDWR | O_CREAT | O_EXCL,
                          kHigh,
                          kMinusOne};
  const Values descriptors = {0, 3, 4, 5, 6, 249, 250, 251, 0xffffffffu, kHigh | 4, kHigh | 250};
  const Values socketOptions = {0,           1,           SO_TYPE, SO_ERROR,         SO_SNDBUF, SO_RCVBUF,
                                SO_PEERCRED, SO_PEEK_OFF, 77,      kHigh | SO_ERROR, kMinusOne};
  const Values levels = {0, SOL_SOCKET, 6, 41, kHigh | SOL_SOCKET};
  Values small;  // numbers of commands
  for (std::uint64_t value = 0; value < 64; ++value) {
    small.push_back(value);
  }
  Values commands = small;
  for (std::uint64_t value = 1024; value < 1040; ++value) {
    commands.push_back(value);
  }
  for (const std::uint64_t value : {kHigh, kHigh | F_GETFL, kHigh | F_SETLK, kMinusOne}) {
    commands.push_back(value);
  }
  Values advice = small;
  for (const std::uint64_t value : {std::uint64_t{100}, std::uint64_t{101}, kHigh | MADV_DONTNEED, kMinusOne}) {
    advice.push_back(value);
  }
  Values clones = {0,
                   SIGCHLD,
                   0x3d0f00,
                   0x7d0f00,
                   0x3d0f00 - CLONE_FILES,
                   CLONE_VM | CLONE_VFORK | SIGCHLD,
                   CLONE_VM | CLONE_SIGHAND | CLONE_THREAD,
                   CLONE_PARENT | SIGCHLD,
                   kHigh | SIGCHLD,
                   kHigh | 0x3d0f00,
                   kMinusOne};
  for (unsigned bit = 0; bit < 64; ++bit) {
    clones.push_back(std::uint64_t{1} << bit);
    clones.push_back((std::uint64_t{1} << bit) ^ 0x3d0f00);
  }
  Values requests = {TCGETS,
                     TIOCSTI,
                     FIONREAD,
                     FIOCLEX,
                     FIONBIO,
                     FIOASYNC,
                     BLKGETSIZE64,
                     BLKSSZGET,
                     BLKPBSZGET,
                     BLKROGET,
                     BLKROSET,
                     BLKFLSBUF,
                     BLKDISCARD,
                     BLKZEROOUT,
                     TUNSETIFF,
                     TUNSETPERSIST,
                     TUNSETOWNER,
                     TUNSETGROUP,
                     TUNSETLINK,
                     TUNSETQUEUE,
                     TUNSETOFFLOAD,
                     TUNGETIFF,
                     TUNGETVNETHDRSZ,
                     TUNSETVNETHDRSZ,
                     TUNSETCARRIER,
                     TUNGETFEATURES,
                     TUNSETSNDBUF,
                     0x54e3,
                     SIOCSIFHWADDR,
                     KVM_RUN,
                     KVM_CREATE_VM,
                     KVM_CREATE_VM | kHigh,
                     kHigh | TUNSETOFFLOAD,
                     kHigh | FIONREAD,
                     0x5411,
                     0x8903,
                     kMinusOne};
  for (std::uint64_t type = 0; type < 256; ++type) {
    requests.push_back(type << 8 | 0x40);
  }
  const Values modes = {0, 1, 2, 3, 4, 8, 16, 17, 32, 64, 65, 128, kHigh | 3, kMinusOne};
  Values controls = small;
  for (const std::uint64_t value :
       {std::uint64_t{0x59616d61}, kHigh | PR_SET_NAME, kHigh | PR_SET_DUMPABLE, std::uint64_t{0x53564d41}}) {
    controls.push_back(value);
  }
  const Values resources = {0, 1, 2, RLIMIT_STACK, RLIMIT_CORE, RLIMIT_NOFILE, RLIMIT_MEMLOCK, 15, kHigh | RLIMIT_CORE};
  const Values pointers = {0, 0x1000, kHigh};
  return {
      {__NR_mmap, {Values{0}, Values{4096}, protections, mappings, Values{5}}},
      {__NR_mprotect, {Values{0}, Values{4096}, protections}},
      {__NR_madvise, {Values{0}, Values{4096}, advice}},
      {__NR_clone, {clones, anyFlags}},
      {__NR_arch_prctl, {Values{0, 0x1001, 0x1002, 0x1003, 0x1004, 0x3001, kHigh | 0x1002, kMinusOne}}},
      {__NR_prlimit64, {Values{0, 1, kHigh, kMinusOne}, resources, pointers, pointers}},
      {__NR_close_range, {Values{3}, Values{255}, Values{0, 1, 2, 4, 6, kHigh, kMinusOne}}},
      {__NR_fcntl, {Values{0, 5}, commands, anyFlags}},
      {__NR_recvfrom, {Values{3}, Values{0}, Values{8}, anyFlags, pointers, pointers}},
      {__NR_sendto,
       {Values{3}, Values{0}, Values{8},
        Values{0, MSG_NOSIGNAL, MSG_DONTWAIT, MSG_NOSIGNAL | MSG_DONTWAIT, MSG_NOSIGNAL | MSG_DONTWAIT | MSG_OOB,
               kHigh | MSG_NOSIGNAL | MSG_DONTWAIT},
        pointers, pointers}},
      {__NR_setsockopt, {Values{3}, levels, socketOptions}},
      {__NR_getsockopt, {Values{3}, levels, socketOptions}},
      {__NR_prctl, {controls, Values{0, 1, 2, SIGKILL, SIGTERM, kHigh, kHigh | 1}}},
      {__NR_seccomp, {Values{0, 1, 2, 3, kHigh | 1}, Values{0, 1, 2, 4, 8, 16, 17, 24, 32, kHigh | 1}}},
      {__NR_execveat,
       {descriptors, Values{0x1000}, Values{0x1000}, Values{0x1000},
        Values{0, AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, kHigh | AT_EMPTY_PATH}}},
      {__NR_fallocate, {Values{5}, modes, Values{0}, Values{1}}},
      {__NR_io_uring_enter,
       {descriptors, Values{8}, Values{0}, Values{0, 1, 2, 4, 8, 9, 16, kHigh}, pointers, Values{8}}},
      {__NR_io_uring_register, {descriptors, small, pointers}},
      {__NR_io_uring_setup, {Values{0, 1, 8}, pointers}},
      {__NR_pwritev2, {Values{5}, Values{0}, Values{1}, Values{0}, Values{0}, modes}},
      {__NR_preadv2, {Values{5}, Values{0}, Values{1}, Values{0}, Values{0}, modes}},
      {__NR_ioctl, {Values{0, 5}, requests}},
      {__NR_memfd_create,
       {pointers, Values{0, 1, 2, 3, 4, 5, 7, 8, 9, 11, 15, 16, 17, 19, 32, kHigh | 1, kHigh | 3, kMinusOne}}},
      {__NR_newfstatat,
       {Values{0, 3, kMinusOne}, pointers, pointers, Values{0, AT_EMPTY_PATH, 0x100, 0x1100, kHigh | AT_EMPTY_PATH}}},
      {__NR_openat, {Values{0, kMinusOne}, pointers, opening, anyFlags}},
      {__NR_open, {pointers, opening, anyFlags}},
      {__NR_socketpair,
       {Values{0, AF_UNIX, AF_INET, AF_NETLINK, kHigh | AF_UNIX},
        Values{0, SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM | SOCK_CLOEXEC,
               SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, SOCK_STREAM | 16, kHigh | SOCK_STREAM},
        Values{0, 1, kHigh}}},
      {__NR_socket, {Values{0, AF_UNIX, AF_INET, AF_NETLINK}, Values{SOCK_STREAM, SOCK_DGRAM}, Values{0, 1}}},
      {__NR_accept4, {Values{3}, pointers, pointers, Values{0, SOCK_CLOEXEC, SOCK_CLOEXEC | SOCK_NONBLOCK, 1}}},
      {__NR_epoll_create1, {Values{0, 1, O_CLOEXEC, kHigh}}},
      {__NR_dup3, {descriptors, descriptors, Values{0, O_CLOEXEC}}},
      {__NR_pipe2, {pointers, Values{0, O_CLOEXEC, O_DIRECT, O_NONBLOCK}}},
  };
}

// Of each argument alone, for calls that the grid does not have.
const std::array<Values, 6>& otherwise() {
  static const Values kFew = {0, 1, 3, 0x1000, kHigh, kMinusOne};
  static const std::array<Values, 6> kAll = {kFew, kFew, kFew, kFew, kFew, kFew};
  return kAll;
}

// FNV-1a, 64 bits: the same everywhere.
class Digest {
 public:
  void add(std::uint32_t word) {
    for (unsigned shift = 0; shift < 32; shift += 8) {
      value_ = (value_ ^ (word >> shift & 0xff)) * 0x100000001b3u;
    }
  }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325u;
};

void addProduct(Digest& digest, std::span<const sock_filter> program, seccomp_data& call,
                const std::array<Values, 6>& values, std::size_t index) {
  if (index == values.size()) {
    digest.add(evaluate(program, call));
    return;
  }
  if (values[index].empty()) {
    call.args[index] = 0;
    addProduct(digest, program, call, values, index + 1);
  }
  for (const std::uint64_t value : values[index]) {
    call.args[index] = value;
    addProduct(digest, program, call, values, index + 1);
  }
}

void addEach(Digest& digest, std::span<const sock_filter> program, seccomp_data& call) {
  for (std::size_t index = 0; index < otherwise().size(); ++index) {
    for (const std::uint64_t value : otherwise()[index]) {
      std::memset(call.args, 0, sizeof call.args);
      call.args[index] = value;
      digest.add(evaluate(program, call));
    }
  }
}

std::vector<BaseParameters> allParameters() {
  std::vector<BaseParameters> all = {{}};
  for (unsigned bits = 0; bits < 8; ++bits) {
    BaseParameters parameters{.executableDescriptor = kExecutable, .rings = 2};
    parameters.makesMemoryFiles = (bits & 1) != 0;
    parameters.makesEpolls = (bits & 2) != 0;
    parameters.hasProc = (bits & 4) != 0;
    all.push_back(parameters);
  }
  return all;
}

// The digests of one policy by call number; behind the last number stand those of other tables.
std::vector<std::uint64_t> digestsOf(std::string_view policy) {
  static const auto kGrid = grid();
  std::vector<Digest> digests(kNumbers + 1);
  for (const BaseParameters& parameters : allParameters()) {
    const auto program = compile(basePolicy(policy, parameters));
    for (std::uint32_t number = 0; number < kNumbers; ++number) {
      seccomp_data call{};
      call.nr = static_cast<int>(number);
      call.arch = kAuditArch;
      if (const auto found = kGrid.find(number); found != kGrid.end()) {
        addProduct(digests[number], program, call, found->second, 0);
      } else {
        addEach(digests[number], program, call);
      }
    }
    for (const std::uint32_t number : {1023u, kX32, kX32 + __NR_getpid, 0xffffffffu}) {
      seccomp_data call{};
      call.nr = static_cast<int>(number);
      for (const std::uint32_t arch : {kAuditArch, 0x40000003u}) {
        call.arch = arch;
        digests[kNumbers].add(evaluate(program, call));
      }
    }
  }
  std::vector<std::uint64_t> values;
  for (const Digest& digest : digests) {
    values.push_back(digest.value());
  }
  return values;
}

struct Known {
  std::string_view policy;
  std::uint32_t number;
  std::uint64_t digest;
};
constexpr Known kKnown[] = {
#include "ipc/jail/seccomp/fixed_policies.inc"
};

// Calls that are not listed end the process, whatever their arguments.
std::map<std::uint32_t, std::uint64_t> knownOf(std::string_view policy) {
  std::map<std::uint32_t, std::uint64_t> known;
  for (const Known& one : kKnown) {
    if (one.policy == policy) {
      known[one.number] = one.digest;
    }
  }
  return known;
}

// The digest of so many refusals.
std::uint64_t refused(std::size_t count) {
  Digest digest;
  for (std::size_t i = 0; i < count; ++i) {
    digest.add(SECCOMP_RET_KILL_PROCESS);
  }
  return digest.value();
}

std::size_t callsOf(std::uint32_t number) {
  static const auto kGrid = grid();
  std::size_t count = 0;
  if (const auto found = kGrid.find(number); found != kGrid.end()) {
    count = 1;
    for (const Values& values : found->second) {
      count *= std::max<std::size_t>(values.size(), 1);
    }
  } else if (number < kNumbers) {
    for (const Values& values : otherwise()) {
      count += values.size();
    }
  } else {
    count = 8;
  }
  return count * allParameters().size();
}

TEST(FixedPolicies, eachName_meansWhatItMeantBeforeThereWereGrants) {
  const char* write = std::getenv("VMMHOST_WRITE_FIXED_POLICIES");  // a file: to begin with, see above
  std::ofstream out(write == nullptr ? "/dev/null" : write);
  for (const char* policy : {"worker-static", "worker-dynamic", "worker-system"}) {
    const auto known = knownOf(policy);
    const auto now = digestsOf(policy);
    for (std::uint32_t number = 0; number < now.size(); ++number) {
      const auto found = known.find(number);
      const std::uint64_t before = found == known.end() ? refused(callsOf(number)) : found->second;
      EXPECT_EQ(now[number], before) << policy << ", call " << number;
      if (now[number] != refused(callsOf(number))) {
        out << "{\"" << policy << "\", " << number << ", 0x" << std::hex << now[number] << std::dec << "},\n";
      }
    }
  }
}

}  // namespace
}  // namespace vmmhost::seccomp

#endif
