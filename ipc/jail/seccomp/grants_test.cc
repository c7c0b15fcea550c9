// The table of grants, and what sets of them come to.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/kvm.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "ipc/jail/seccomp/call_table.h"
#include "ipc/jail/seccomp/test_calls.h"
#include "vmmhost/error.h"
#include "vmmhost/seccomp.h"

namespace vmmhost::seccomp {
namespace {

constexpr BaseParameters kParameters{.executableDescriptor = kExecutable, .rings = 2};

std::uint64_t allGrants() {
  std::uint64_t all = 0;
  for (const Grant& one : grants()) {
    all |= one.bit;
  }
  return all;
}

std::uint32_t verdict(std::span<const sock_filter> program, const Call& call) {
  seccomp_data data{};
  data.nr = static_cast<int>(call.number);
  data.arch = kAuditArch;
  std::copy(call.args.begin(), call.args.end(), data.args);
  return evaluate(program, data);
}

// The rules of a policy as a set, each with its conditions in a row.
using Rules = std::set<std::vector<std::uint64_t>>;
Rules rulesOf(const Policy& policy) {
  Rules rules;
  for (const Rule& rule : policy.allow) {
    std::vector<std::uint64_t> words = {rule.number};
    for (const ArgCheck& check : rule.checks) {
      words.insert(words.end(), {check.index, check.mask, check.value});
    }
    rules.insert(std::move(words));
  }
  return rules;
}

TEST(Grants, haveNamesAndSentencesOfTheirOwn_andOneBitEach) {
  std::set<std::string_view> names;
  std::set<std::uint64_t> bits;
  for (const Grant& one : grants()) {
    EXPECT_EQ(one.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz-"), std::string_view::npos) << one.name;
    EXPECT_TRUE(names.insert(one.name).second) << one.name;
    EXPECT_TRUE(bits.insert(one.bit).second) << one.name;
    EXPECT_EQ(one.bit & (one.bit - 1), 0u) << one.name;
    EXPECT_GT(one.allows.size(), 20u) << one.name;
    EXPECT_EQ(one.allows.find_first_of("|\n"), std::string_view::npos) << one.name << ": it stands in a table";
  }
}

TEST(Grants, areNamedInTheirOrder_andUnknownBitsByNumber) {
  EXPECT_EQ(namesOf(0), "none");
  EXPECT_EQ(namesOf(grant::kDisks | grant::kKvm), "kvm, disks");
  EXPECT_EQ(namesOf(grant::kKvm | std::uint64_t{1} << 63), "kvm, bit 63");
}

TEST(Grants, thatDoNotExist_areRefusedByNumber) {
  try {
    composedPolicy(grant::kKvm | std::uint64_t{1} << 40, kParameters);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(error.message().find("bit 40"), std::string::npos) << error.message();
    EXPECT_EQ(error.message().find("kvm"), std::string::npos) << error.message();
  }
}

TEST(Grants, ofEachPair_compile_andAllowWhatOneOfThemAllows_andNoMore) {
  for (const Grant& one : grants()) {
    const Rules first = rulesOf(composedPolicy(one.bit, kParameters));
    for (const Grant& other : grants()) {
      const Policy both = composedPolicy(one.bit | other.bit, kParameters);
      Rules expected = rulesOf(composedPolicy(other.bit, kParameters));
      expected.insert(first.begin(), first.end());
      EXPECT_EQ(rulesOf(both), expected) << one.name << ", " << other.name;
      EXPECT_NO_THROW(compile(both)) << one.name << ", " << other.name;
    }
  }
}

TEST(Grants, ofEverySet_compile) {
  for (std::uint64_t bits = 0; bits <= allGrants(); ++bits) {
    ASSERT_NO_THROW(compile(composedPolicy(bits, kParameters))) << namesOf(bits);
  }
}

// No two pieces have different errnos for one call today: who adds one decides by its place in the table.
TEST(Grants, thatGiveACallTwoErrnos_leaveItTheFirst) {
  Policy policy;
  policy.name = "tested";
  failWith(policy, ENOSYS, {__NR_openat});
  failWith(policy, EPERM, {__NR_mkdirat, __NR_openat});
  failWith(policy, EROFS, {__NR_mkdirat});
  EXPECT_THROW(compile(policy), Error);
  keepFirstErrnos(policy);
  const auto program = compile(policy);
  EXPECT_EQ(verdict(program, {"", __NR_openat}), SECCOMP_RET_ERRNO | ENOSYS);
  EXPECT_EQ(verdict(program, {"", __NR_mkdirat}), SECCOMP_RET_ERRNO | EPERM);
}

TEST(Grants, thatAllowACall_leaveNothingOfAnErrnoThatAnotherGivesIt) {
  const Call unlink = {"", __NR_unlinkat, {3}};
  EXPECT_EQ(verdict(programOf(grant::kFiles), unlink), SECCOMP_RET_ERRNO | EROFS);
  EXPECT_EQ(verdict(programOf(grant::kFiles | grant::kTemporaryFiles), unlink), SECCOMP_RET_ALLOW);
}

TEST(Grants, withNoneOfThem_nothingIsAllowedThatAStaticWorkerMayNot) {
  const auto program = programOf(std::uint64_t{0});
  for (const auto& calls : {deniedToAll(), deniedToStatic()}) {
    for (const Call& call : calls) {
      EXPECT_EQ(verdict(program, call), SECCOMP_RET_KILL_PROCESS) << call.name;
    }
  }
  EXPECT_EQ(verdict(program, {"KVM_RUN", __NR_ioctl, {5, KVM_RUN}}), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(verdict(program, {"a ring", __NR_io_uring_enter, {4, 8, 0, 0, 0, 8}}), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(verdict(program, {"send", __NR_sendto, {3, 0x1000, 8, MSG_NOSIGNAL | MSG_DONTWAIT, 0, 0}}),
            SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(verdict(program, {"read", __NR_read, {3}}), SECCOMP_RET_ALLOW);
}

TEST(Grants, withAllOfThem_whatNoWorkerMayIsDenied) {
  const auto program = programOf(allGrants());
  for (const Call& call : deniedToAll()) {
    // All that one of them is about.
    const std::uint32_t expected =
        call.number == __NR_accept4 ? SECCOMP_RET_ALLOW : static_cast<std::uint32_t>(SECCOMP_RET_KILL_PROCESS);
    EXPECT_EQ(verdict(program, call), expected) << call.name;
  }
  // No memory that was written becomes executable, which the fixed policies for programs allow.
  for (const std::uint64_t flags : {MAP_PRIVATE | MAP_ANONYMOUS, MAP_SHARED | MAP_ANONYMOUS, MAP_SHARED}) {
    EXPECT_EQ(verdict(program, {"", __NR_mmap, {0, 4096, PROT_READ | PROT_EXEC, flags, 5}}), SECCOMP_RET_KILL_PROCESS);
  }
  EXPECT_EQ(verdict(program, {"", __NR_mmap, {0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE, 5}}),
            SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(verdict(program, {"", __NR_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, 5}}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(verdict(program, {"", __NR_mprotect, {0, 4096, PROT_READ | PROT_EXEC}}), SECCOMP_RET_KILL_PROCESS);
}

TEST(Grants, eachAllowsACallThatNoneOfTheOthersAllows) {
  struct Own {
    std::uint64_t bit;
    Call call;
  };
  const std::vector<Own> all = {
      {grant::kKvm, {"", __NR_ioctl, {5, KVM_RUN}}},
      {grant::kTap, {"", __NR_ioctl, {5, 0x400454d0 /* TUNSETOFFLOAD */}}},
      {grant::kRings, {"", __NR_io_uring_enter, {5, 8, 0, 0, 0, 8}}},
      {grant::kDisks, {"", __NR_fallocate, {5, 3, 0, 1}}},
      {grant::kVsockSockets, {"", __NR_setsockopt, {3, SOL_SOCKET, SO_PEEK_OFF}}},
      {grant::kAccept, {"", __NR_accept4, {3, 0, 0, SOCK_CLOEXEC}}},
      {grant::kMemoryFiles, {"", __NR_memfd_create, {0, 1 | kNoExecSeal}}},
      {grant::kEpolls, {"", __NR_epoll_create1, {0}}},
      {grant::kFiles, {"", __NR_statx, {3}}},
      {grant::kTemporaryFiles, {"", __NR_openat, {3, 0, O_RDWR | O_CREAT}}},
      {grant::kLoader, {"", __NR_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, 5}}},
      {grant::kPrograms, {"", __NR_execve}},
      {grant::kPairs, {"", __NR_socketpair, {AF_UNIX, SOCK_STREAM}}},
  };
  ASSERT_EQ(all.size(), grants().size());
  for (const Own& own : all) {
    for (const Grant& one : grants()) {
      EXPECT_EQ(verdict(programOf(one.bit), own.call) == SECCOMP_RET_ALLOW, one.bit == own.bit)
          << one.name << " and call " << own.call.number;
    }
  }
}

TEST(Grants, memoryFiles_areSealedAgainstExecution) {
  const auto program = programOf(grant::kMemoryFiles);
  for (const std::uint64_t flags : {0u, 1u, 3u, 1u | 0x10u, 1u | 4u | kNoExecSeal}) {
    EXPECT_EQ(verdict(program, {"", __NR_memfd_create, {0, flags}}), SECCOMP_RET_KILL_PROCESS) << flags;
  }
  EXPECT_EQ(verdict(program, {"", __NR_memfd_create, {0, 3 | kNoExecSeal}}), SECCOMP_RET_ALLOW);
}

TEST(PolicyChoice, isANameOrASet_andSaysWhich) {
  const PolicyChoice named = "worker-static";
  EXPECT_FALSE(named.isComposed());
  EXPECT_EQ(named, "worker-static");
  EXPECT_EQ(named.describe(), "worker-static");
  EXPECT_TRUE(named.has(grant::kKvm | grant::kDisks));
  EXPECT_FALSE(named.has(grant::kFiles));
  EXPECT_TRUE(PolicyChoice("worker-system").has(grant::kPrograms));
  EXPECT_FALSE(PolicyChoice("worker-dynamic").has(grant::kPrograms));

  const PolicyChoice composed = PolicyChoice::ofGrants(grant::kKvm);
  EXPECT_TRUE(composed.isComposed());
  EXPECT_FALSE(composed == "");
  EXPECT_EQ(composed.describe(), "grants: kvm");
  EXPECT_FALSE(composed == named);
  EXPECT_EQ(rulesOf(composed.policy(kParameters)), rulesOf(composedPolicy(grant::kKvm, kParameters)));
  EXPECT_THROW(PolicyChoice("").policy(kParameters), Error) << "no name is not the empty set";
}

}  // namespace
}  // namespace vmmhost::seccomp
