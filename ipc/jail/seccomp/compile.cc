// Policy to classic BPF. The space of call numbers is cut into ranges of one action each; a binary tree of
// comparisons finds the range, and every leaf ends in a return of its own, so that no jump is far.
#include <linux/audit.h>

#include <cstddef>
#include <map>
#include <string>

#include "ipc/jail/seccomp/call_table.h"
#include "vmmhost/error.h"

namespace vmmhost::seccomp {

#if defined(__x86_64__)
const std::uint32_t kAuditArch = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
const std::uint32_t kAuditArch = AUDIT_ARCH_AARCH64;
#else
#error "no AUDIT_ARCH for this architecture"
#endif

namespace {

using Program = std::vector<sock_filter>;

constexpr std::uint32_t kEndOfNumbers = 0x40000000;  // above: x32 on x86-64, nothing elsewhere
constexpr std::uint32_t kMaxErrno = 4095;

// What to do with one number.
struct Action {
  std::vector<const Rule*> alternatives;  // empty: `otherwise` at once
  std::uint32_t otherwise = SECCOMP_RET_KILL_PROCESS;

  bool operator==(const Action&) const = default;
};

struct Range {
  std::uint32_t first = 0;
  Action action;
};

[[noreturn]] void refuse(const Policy& policy, std::uint32_t number, const std::string& why) {
  throw Error(ErrorCode::kInternal,
              "seccomp policy " + std::string(policy.name) + ", call " + std::to_string(number) + ": " + why);
}

constexpr sock_filter statement(std::uint16_t code, std::uint32_t k) {
  return sock_filter{code, 0, 0, k};
}

constexpr sock_filter jump(std::uint16_t code, std::uint32_t k, std::size_t ifTrue, std::size_t ifFalse) {
  return sock_filter{code, static_cast<std::uint8_t>(ifTrue), static_cast<std::uint8_t>(ifFalse), k};
}

constexpr sock_filter ret(std::uint32_t value) {
  return statement(BPF_RET | BPF_K, value);
}

// One half of an argument, compared; a mismatch jumps to the end of `out` (patched by the caller).
void appendHalf(Program& out, std::uint32_t offset, std::uint32_t mask, std::uint32_t value) {
  if (mask == 0) {
    return;
  }
  out.push_back(statement(BPF_LD | BPF_W | BPF_ABS, offset));
  if (mask != 0xffffffffu) {
    out.push_back(statement(BPF_ALU | BPF_AND | BPF_K, mask));
  }
  out.push_back(jump(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 0));
}

Program alternative(const Rule& rule) {
  Program out;
  for (const ArgCheck& check : rule.checks) {
    // Both supported architectures are little-endian.
    const auto offset = static_cast<std::uint32_t>(offsetof(seccomp_data, args) + 8u * check.index);
    appendHalf(out, offset, static_cast<std::uint32_t>(check.mask), static_cast<std::uint32_t>(check.value));
    appendHalf(out, offset + 4, static_cast<std::uint32_t>(check.mask >> 32),
               static_cast<std::uint32_t>(check.value >> 32));
  }
  out.push_back(ret(SECCOMP_RET_ALLOW));
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (out[i].code == (BPF_JMP | BPF_JEQ | BPF_K)) {
      out[i].jf = static_cast<std::uint8_t>(out.size() - i - 1);
    }
  }
  return out;
}

Program leaf(const Action& action) {
  Program out;
  for (const Rule* rule : action.alternatives) {
    const Program one = alternative(*rule);
    out.insert(out.end(), one.begin(), one.end());
  }
  out.push_back(ret(action.otherwise));
  return out;
}

Program tree(std::span<const Range> ranges) {
  if (ranges.size() == 1) {
    return leaf(ranges.front().action);
  }
  const std::size_t middle = ranges.size() / 2;
  const Program below = tree(ranges.first(middle));
  const Program above = tree(ranges.subspan(middle));
  Program out;
  if (below.size() <= 255) {
    out.push_back(jump(BPF_JMP | BPF_JGE | BPF_K, ranges[middle].first, below.size(), 0));
  } else {
    out.push_back(jump(BPF_JMP | BPF_JGE | BPF_K, ranges[middle].first, 0, 1));
    out.push_back(statement(BPF_JMP | BPF_JA, static_cast<std::uint32_t>(below.size())));
  }
  out.insert(out.end(), below.begin(), below.end());
  out.insert(out.end(), above.begin(), above.end());
  return out;
}

void check(const Policy& policy, const Rule& rule) {
  if (rule.number >= kEndOfNumbers) {
    refuse(policy, rule.number, "not a native call number");
  }
  if (rule.checks.size() > 16) {
    refuse(policy, rule.number, "more than 16 conditions in one rule");
  }
  for (const ArgCheck& one : rule.checks) {
    if (one.index > 5) {
      refuse(policy, rule.number, "there is no argument " + std::to_string(one.index));
    }
    if ((one.value & ~one.mask) != 0) {
      refuse(policy, rule.number, "a condition on argument " + std::to_string(one.index) + " can never hold");
    }
  }
}

std::map<std::uint32_t, Action> actions(const Policy& policy) {
  std::map<std::uint32_t, Action> byNumber;
  for (const Rule& rule : policy.allow) {
    check(policy, rule);
    byNumber[rule.number].alternatives.push_back(&rule);
  }
  for (const ErrnoRule& rule : policy.fail) {
    if (rule.number >= kEndOfNumbers) {
      refuse(policy, rule.number, "not a native call number");
    }
    if (rule.errnoValue == 0 || rule.errnoValue > kMaxErrno) {
      refuse(policy, rule.number, "errno " + std::to_string(rule.errnoValue) + " is out of range");
    }
    Action& action = byNumber[rule.number];
    const std::uint32_t answer = SECCOMP_RET_ERRNO | rule.errnoValue;
    if (action.otherwise != SECCOMP_RET_KILL_PROCESS && action.otherwise != answer) {
      refuse(policy, rule.number, "two errno values");
    }
    action.otherwise = answer;
  }
  for (auto& [number, action] : byNumber) {
    for (const Rule* rule : action.alternatives) {
      if (rule->checks.empty()) {  // makes all others superfluous
        action = Action{{}, SECCOMP_RET_ALLOW};
        break;
      }
    }
  }
  return byNumber;
}

std::vector<Range> ranges(const std::map<std::uint32_t, Action>& byNumber) {
  std::vector<Range> out{Range{}};
  const auto append = [&out](std::uint32_t first, const Action& action) {
    if (out.back().first == first) {
      out.back().action = action;
    } else if (!(out.back().action == action)) {
      out.push_back(Range{first, action});
    }
  };
  for (const auto& [number, action] : byNumber) {
    append(number, action);
    // The number after it, unless the next turn of the loop says otherwise.
    if (byNumber.find(number + 1) == byNumber.end()) {
      append(number + 1, Action{});
    }
  }
  return out;
}

}  // namespace

std::vector<sock_filter> compile(const Policy& policy) {
  const std::map<std::uint32_t, Action> byNumber = actions(policy);
  Program out{
      statement(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      jump(BPF_JMP | BPF_JEQ | BPF_K, kAuditArch, 1, 0),
      ret(SECCOMP_RET_KILL_PROCESS),
      statement(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      jump(BPF_JMP | BPF_JGE | BPF_K, kEndOfNumbers, 0, 1),
      ret(SECCOMP_RET_KILL_PROCESS),
  };
  const Program body = tree(ranges(byNumber));
  out.insert(out.end(), body.begin(), body.end());
  if (out.size() > BPF_MAXINSNS) {
    throw Error(ErrorCode::kInternal, "seccomp policy " + std::string(policy.name) + " takes " +
                                          std::to_string(out.size()) + " instructions, at most " +
                                          std::to_string(BPF_MAXINSNS) + " are possible");
  }
  return out;
}

}  // namespace vmmhost::seccomp
