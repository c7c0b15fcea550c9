// Classic BPF as the kernel accepts it for seccomp: net/core/filter.c bpf_check_classic(), kernel/seccomp.c
// seccomp_check_filter().
#include <array>
#include <cstring>
#include <optional>

#include "vmmhost/seccomp.h"

namespace vmmhost::seccomp {
namespace {

constexpr std::uint32_t kMalformed = SECCOMP_RET_KILL_PROCESS;

bool isKnown(std::uint16_t code) {
  switch (code) {
    case BPF_LD | BPF_W | BPF_ABS:
    case BPF_LD | BPF_W | BPF_LEN:
    case BPF_LDX | BPF_W | BPF_LEN:
    case BPF_LD | BPF_IMM:
    case BPF_LDX | BPF_IMM:
    case BPF_LD | BPF_MEM:
    case BPF_LDX | BPF_MEM:
    case BPF_ST:
    case BPF_STX:
    case BPF_RET | BPF_K:
    case BPF_RET | BPF_A:
    case BPF_MISC | BPF_TAX:
    case BPF_MISC | BPF_TXA:
    case BPF_ALU | BPF_NEG:
    case BPF_JMP | BPF_JA:
      return true;
    default:
      break;
  }
  const std::uint16_t operation = BPF_OP(code);
  if ((code & 0xff00) != 0) {
    return false;
  }
  if (BPF_CLASS(code) == BPF_ALU) {
    return operation == BPF_ADD || operation == BPF_SUB || operation == BPF_MUL || operation == BPF_DIV ||
           operation == BPF_AND || operation == BPF_OR || operation == BPF_XOR || operation == BPF_LSH ||
           operation == BPF_RSH;
  }
  if (BPF_CLASS(code) == BPF_JMP) {
    return operation == BPF_JEQ || operation == BPF_JGT || operation == BPF_JGE || operation == BPF_JSET;
  }
  return false;
}

// The checks on one instruction that need no state; `after` is how many instructions follow it.
bool isAcceptable(const sock_filter& instruction, std::size_t after) {
  const std::uint16_t code = instruction.code;
  const std::uint32_t k = instruction.k;
  if (!isKnown(code)) {
    return false;
  }
  if (code == (BPF_LD | BPF_W | BPF_ABS)) {
    return k % 4 == 0 && k < sizeof(seccomp_data);
  }
  if (code == (BPF_LD | BPF_MEM) || code == (BPF_LDX | BPF_MEM) || code == BPF_ST || code == BPF_STX) {
    return k < BPF_MEMWORDS;
  }
  if (code == (BPF_ALU | BPF_DIV | BPF_K)) {
    return k != 0;
  }
  if (code == (BPF_ALU | BPF_LSH | BPF_K) || code == (BPF_ALU | BPF_RSH | BPF_K)) {
    return k < 32;
  }
  if (code == (BPF_JMP | BPF_JA)) {
    return k < after;
  }
  if (BPF_CLASS(code) == BPF_JMP) {
    return instruction.jt < after && instruction.jf < after;
  }
  return true;
}

bool isAcceptable(std::span<const sock_filter> program) {
  if (program.empty() || program.size() > BPF_MAXINSNS || BPF_CLASS(program.back().code) != BPF_RET) {
    return false;
  }
  for (std::size_t i = 0; i < program.size(); ++i) {
    if (!isAcceptable(program[i], program.size() - i - 1)) {
      return false;
    }
  }
  return true;
}

struct Machine {
  std::uint32_t a = 0;
  std::uint32_t x = 0;
  std::array<std::optional<std::uint32_t>, BPF_MEMWORDS> memory;
};

// Nothing when it divides by zero.
std::optional<std::uint32_t> calculate(std::uint16_t operation, std::uint32_t a, std::uint32_t operand) {
  switch (operation) {
    case BPF_ADD:
      return a + operand;
    case BPF_SUB:
      return a - operand;
    case BPF_MUL:
      return a * operand;
    case BPF_DIV:
      return operand == 0 ? std::nullopt : std::optional(a / operand);
    case BPF_AND:
      return a & operand;
    case BPF_OR:
      return a | operand;
    case BPF_XOR:
      return a ^ operand;
    case BPF_LSH:
      return a << (operand & 31);
    case BPF_RSH:
      return a >> (operand & 31);
    default:
      return std::nullopt;
  }
}

bool compare(std::uint16_t operation, std::uint32_t a, std::uint32_t operand) {
  switch (operation) {
    case BPF_JEQ:
      return a == operand;
    case BPF_JGT:
      return a > operand;
    case BPF_JGE:
      return a >= operand;
    default:
      return (a & operand) != 0;  // BPF_JSET
  }
}

std::uint32_t loadWord(const seccomp_data& call, std::uint32_t offset) {
  std::uint32_t word = 0;
  std::memcpy(&word, reinterpret_cast<const char*>(&call) + offset, sizeof word);
  return word;
}

// Loads, stores and register moves; false when a cell is read that nothing was stored to.
bool move(Machine& machine, const sock_filter& instruction, const seccomp_data& call) {
  std::optional<std::uint32_t> value;
  switch (instruction.code) {
    case BPF_LD | BPF_W | BPF_ABS:
      value = loadWord(call, instruction.k);
      break;
    case BPF_LD | BPF_W | BPF_LEN:
    case BPF_LDX | BPF_W | BPF_LEN:
      value = sizeof(seccomp_data);
      break;
    case BPF_LD | BPF_MEM:
    case BPF_LDX | BPF_MEM:
      value = machine.memory[instruction.k];
      break;
    case BPF_ST:
      machine.memory[instruction.k] = machine.a;
      return true;
    case BPF_STX:
      machine.memory[instruction.k] = machine.x;
      return true;
    case BPF_MISC | BPF_TAX:
      machine.x = machine.a;
      return true;
    case BPF_MISC | BPF_TXA:
      machine.a = machine.x;
      return true;
    default:
      value = instruction.k;  // immediate
      break;
  }
  if (!value) {
    return false;
  }
  (BPF_CLASS(instruction.code) == BPF_LDX ? machine.x : machine.a) = *value;
  return true;
}

}  // namespace

std::uint32_t evaluate(std::span<const sock_filter> program, const seccomp_data& call) {
  if (!isAcceptable(program)) {
    return kMalformed;
  }
  Machine machine;
  for (std::size_t i = 0; i < program.size(); ++i) {  // jumps go forward only: this ends
    const sock_filter& instruction = program[i];
    const std::uint32_t operand = BPF_SRC(instruction.code) == BPF_X ? machine.x : instruction.k;
    switch (BPF_CLASS(instruction.code)) {
      case BPF_RET:
        return BPF_RVAL(instruction.code) == BPF_A ? machine.a : instruction.k;
      case BPF_JMP:
        if (BPF_OP(instruction.code) == BPF_JA) {
          i += instruction.k;
        } else {
          i += compare(BPF_OP(instruction.code), machine.a, operand) ? instruction.jt : instruction.jf;
        }
        break;
      case BPF_ALU:
        if (BPF_OP(instruction.code) == BPF_NEG) {
          machine.a = 0u - machine.a;
        } else if (const auto result = calculate(BPF_OP(instruction.code), machine.a, operand)) {
          machine.a = *result;
        } else {
          return kMalformed;
        }
        break;
      default:
        if (!move(machine, instruction, call)) {
          return kMalformed;
        }
        break;
    }
  }
  return kMalformed;
}

}  // namespace vmmhost::seccomp
