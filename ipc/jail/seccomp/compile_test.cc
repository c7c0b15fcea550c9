#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <cerrno>
#include <random>
#include <string>

#include "vmmhost/error.h"
#include "vmmhost/seccomp.h"

namespace vmmhost::seccomp {
namespace {

seccomp_data callOf(std::uint32_t number, std::uint64_t first = 0, std::uint64_t last = 0) {
  seccomp_data data{};
  data.nr = static_cast<int>(number);
  data.arch = kAuditArch;
  data.args[0] = first;
  data.args[5] = last;
  return data;
}

Policy policyOf(std::vector<Rule> allow, std::vector<ErrnoRule> fail = {}) {
  return Policy{"tested", std::move(allow), std::move(fail)};
}

// What a policy says, without BPF.
std::uint32_t expected(const Policy& policy, const seccomp_data& call) {
  for (const Rule& rule : policy.allow) {
    if (rule.number != static_cast<std::uint32_t>(call.nr)) {
      continue;
    }
    bool holds = true;
    for (const ArgCheck& check : rule.checks) {
      holds = holds && (call.args[check.index] & check.mask) == check.value;
    }
    if (holds) {
      return SECCOMP_RET_ALLOW;
    }
  }
  for (const ErrnoRule& rule : policy.fail) {
    if (rule.number == static_cast<std::uint32_t>(call.nr)) {
      return SECCOMP_RET_ERRNO | rule.errnoValue;
    }
  }
  return SECCOMP_RET_KILL_PROCESS;
}

TEST(Compile, emptyPolicy_killsAll) {
  const auto program = compile(policyOf({}));
  for (const std::uint32_t number : {0u, 1u, 999u, 0x3fffffffu, 0x40000000u, 0xffffffffu}) {
    EXPECT_EQ(evaluate(program, callOf(number)), SECCOMP_RET_KILL_PROCESS);
  }
}

TEST(Compile, firstAndLastNumber_areFound) {
  const auto program = compile(policyOf({{0, {}}, {0x3fffffff, {}}}));
  EXPECT_EQ(evaluate(program, callOf(0)), SECCOMP_RET_ALLOW);
  EXPECT_EQ(evaluate(program, callOf(1)), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(evaluate(program, callOf(0x3ffffffe)), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(evaluate(program, callOf(0x3fffffff)), SECCOMP_RET_ALLOW);
  EXPECT_EQ(evaluate(program, callOf(0x40000000)), SECCOMP_RET_KILL_PROCESS);
}

TEST(Compile, bothHalvesOfAnArgument_count) {
  const std::uint64_t value = 0x1234567890abcdefu;
  const auto program = compile(policyOf({{7, {{5, ~std::uint64_t{0}, value}}}}));
  EXPECT_EQ(evaluate(program, callOf(7, 0, value)), SECCOMP_RET_ALLOW);
  EXPECT_EQ(evaluate(program, callOf(7, 0, value ^ 1)), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(evaluate(program, callOf(7, 0, value ^ (std::uint64_t{1} << 63))), SECCOMP_RET_KILL_PROCESS);
}

TEST(Compile, errno_isTheAnswerWhenNoAlternativeHolds) {
  const auto program = compile(
      policyOf({{7, {{0, ~std::uint64_t{0}, 1}}}, {7, {{0, ~std::uint64_t{0}, 2}}}}, {{7, EPERM}, {9, ENOSYS}}));
  EXPECT_EQ(evaluate(program, callOf(7, 1)), SECCOMP_RET_ALLOW);
  EXPECT_EQ(evaluate(program, callOf(7, 2)), SECCOMP_RET_ALLOW);
  EXPECT_EQ(evaluate(program, callOf(7, 3)), SECCOMP_RET_ERRNO | EPERM);
  EXPECT_EQ(evaluate(program, callOf(9)), SECCOMP_RET_ERRNO | ENOSYS);
}

TEST(Compile, randomPolicies_meanWhatTheySay) {
  std::mt19937_64 random(20240117);
  for (int round = 0; round < 60; ++round) {
    Policy policy = policyOf({});
    const std::size_t rules = random() % 400;
    for (std::size_t i = 0; i < rules; ++i) {
      Rule rule{static_cast<std::uint32_t>(random() % 300), {}};
      for (std::size_t n = random() % 4; n > 0; --n) {
        const std::uint64_t mask = random() % 2 == 0 ? random() & random() & 0xffffffff00ff : 0xffffffffu;
        rule.checks.push_back({static_cast<std::uint8_t>(random() % 6), mask, random() & 3 & mask});
      }
      policy.allow.push_back(rule);
    }
    for (std::uint32_t number = static_cast<std::uint32_t>(random() % 20); number < 300; number += 37) {
      policy.fail.push_back({number, ENOSYS});
    }
    const auto program = compile(policy);
    for (std::uint32_t number = 0; number < 310; ++number) {
      for (int i = 0; i < 4; ++i) {
        seccomp_data call = callOf(number);
        for (auto& argument : call.args) {
          argument = random() & 7;
        }
        ASSERT_EQ(evaluate(program, call), expected(policy, call)) << "round " << round << ", call " << number;
      }
    }
  }
}

TEST(Compile, whatCannotBeExpressed_isRefused) {
  const auto isRefused = [](const Policy& policy) {
    try {
      compile(policy);
      return false;
    } catch (const Error& error) {
      return error.code() == ErrorCode::kInternal && error.message().find("tested") != std::string::npos;
    }
  };
  EXPECT_TRUE(isRefused(policyOf({{0x40000000, {}}})));
  EXPECT_TRUE(isRefused(policyOf({{1, {{6, 1, 1}}}})));
  EXPECT_TRUE(isRefused(policyOf({{1, {{0, 1, 2}}}})));
  EXPECT_TRUE(isRefused(policyOf({}, {{1, EPERM}, {1, ENOSYS}})));
  EXPECT_TRUE(isRefused(policyOf({}, {{1, 0}})));
  Policy huge = policyOf({});
  for (std::uint32_t number = 0; number < 1000; ++number) {
    huge.allow.push_back({number, {{0, ~std::uint64_t{0}, number}}});
  }
  EXPECT_TRUE(isRefused(huge));
}

constexpr sock_filter kAllow{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};

std::uint32_t run(std::vector<sock_filter> program) {
  return evaluate(program, callOf(5, 0x1122334455667788u));
}

TEST(Evaluate, malformedPrograms_kill) {
  EXPECT_EQ(run({}), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(run({{BPF_LD | BPF_W | BPF_ABS, 0, 0, 0}}), SECCOMP_RET_KILL_PROCESS) << "no return";
  EXPECT_EQ(run({{BPF_LD | BPF_W | BPF_ABS, 0, 0, 2}, kAllow}), SECCOMP_RET_KILL_PROCESS) << "misaligned";
  EXPECT_EQ(run({{BPF_LD | BPF_W | BPF_ABS, 0, 0, 64}, kAllow}), SECCOMP_RET_KILL_PROCESS) << "outside";
  EXPECT_EQ(run({{BPF_LD | BPF_B | BPF_ABS, 0, 0, 0}, kAllow}), SECCOMP_RET_KILL_PROCESS) << "byte";
  EXPECT_EQ(run({{BPF_LD | BPF_W | BPF_IND, 0, 0, 0}, kAllow}), SECCOMP_RET_KILL_PROCESS) << "indirect";
  EXPECT_EQ(run({{BPF_JMP | BPF_JA, 0, 0, 1}, kAllow}), SECCOMP_RET_KILL_PROCESS) << "jump past the end";
  EXPECT_EQ(run({{BPF_JMP | BPF_JA, 0, 0, 0xffffffff}, kAllow}), SECCOMP_RET_KILL_PROCESS) << "jump backwards";
  EXPECT_EQ(run({{BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 0}, kAllow}), SECCOMP_RET_KILL_PROCESS) << "branch past the end";
  EXPECT_EQ(run({{BPF_ALU | BPF_DIV | BPF_K, 0, 0, 0}, kAllow}), SECCOMP_RET_KILL_PROCESS) << "by zero";
  EXPECT_EQ(run({{BPF_ALU | BPF_DIV | BPF_X, 0, 0, 0}, kAllow}), SECCOMP_RET_KILL_PROCESS) << "by X, zero";
  EXPECT_EQ(run({{BPF_ALU | BPF_LSH | BPF_K, 0, 0, 32}, kAllow}), SECCOMP_RET_KILL_PROCESS) << "shift";
  EXPECT_EQ(run({{BPF_ST, 0, 0, 16}, kAllow}), SECCOMP_RET_KILL_PROCESS) << "no such cell";
  EXPECT_EQ(run({{BPF_LD | BPF_MEM, 0, 0, 3}, kAllow}), SECCOMP_RET_KILL_PROCESS) << "cell never written";
  EXPECT_EQ(run({{0xffff, 0, 0, 0}, kAllow}), SECCOMP_RET_KILL_PROCESS) << "no such instruction";
  EXPECT_EQ(run(std::vector<sock_filter>(BPF_MAXINSNS + 1, kAllow)), SECCOMP_RET_KILL_PROCESS) << "too long";
}

TEST(Evaluate, arithmetic_isThatOf32Bits) {
  const auto calculated = [](std::uint16_t operation, std::uint32_t a, std::uint32_t k) {
    return run({{BPF_LD | BPF_IMM, 0, 0, a},
                {static_cast<std::uint16_t>(BPF_ALU | operation | BPF_K), 0, 0, k},
                {BPF_RET | BPF_A, 0, 0, 0}});
  };
  EXPECT_EQ(calculated(BPF_ADD, 0xffffffff, 2), 1u);
  EXPECT_EQ(calculated(BPF_SUB, 1, 2), 0xffffffffu);
  EXPECT_EQ(calculated(BPF_MUL, 0x80000001, 2), 2u);
  EXPECT_EQ(calculated(BPF_DIV, 7, 2), 3u);
  EXPECT_EQ(calculated(BPF_AND, 6, 3), 2u);
  EXPECT_EQ(calculated(BPF_OR, 6, 3), 7u);
  EXPECT_EQ(calculated(BPF_XOR, 6, 3), 5u);
  EXPECT_EQ(calculated(BPF_LSH, 1, 31), 0x80000000u);
  EXPECT_EQ(calculated(BPF_RSH, 0x80000000, 31), 1u);
  EXPECT_EQ(run({{BPF_LD | BPF_IMM, 0, 0, 1}, {BPF_ALU | BPF_NEG, 0, 0, 0}, {BPF_RET | BPF_A, 0, 0, 0}}), 0xffffffffu);
}

TEST(Evaluate, registersCellsAndBranches_work) {
  const std::vector<sock_filter> program = {
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, 20},  // high half of the first argument
      {BPF_ST, 0, 0, 15},
      {BPF_LDX | BPF_MEM, 0, 0, 15},
      {BPF_LD | BPF_IMM, 0, 0, 0x11223344},
      {BPF_JMP | BPF_JEQ | BPF_X, 0, 3, 0},
      {BPF_MISC | BPF_TXA, 0, 0, 0},
      {BPF_JMP | BPF_JSET | BPF_K, 0, 1, 0x10000000},
      {BPF_RET | BPF_A, 0, 0, 0},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_KILL_PROCESS},
  };
  EXPECT_EQ(run(program), 0x11223344u);
  EXPECT_EQ(run({{BPF_LD | BPF_W | BPF_LEN, 0, 0, 0}, {BPF_RET | BPF_A, 0, 0, 0}}), sizeof(seccomp_data));
}

}  // namespace
}  // namespace vmmhost::seccomp
