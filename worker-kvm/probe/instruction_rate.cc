#include "worker-kvm/probe/instruction_rate.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <string>

#include "vmmhost/error.h"
#include "worker-kvm/memory/guest_memory.h"

namespace vmmhost::kvm::probe {

namespace {

using std::chrono::steady_clock;

constexpr std::uint64_t kCodeAddress = 0x1000;
constexpr std::uint64_t kMemoryBytes = 0x2000;
constexpr std::uint64_t kInstructionsPerTurn = 2;
// In real mode: dec ecx; jnz to itself; out to port 0x80; jump to the start. ECX comes from outside.
constexpr std::array<std::uint8_t, 8> kCode = {0x66, 0x49, 0x75, 0xfc, 0xe6, 0x80, 0xeb, 0xf8};
// Shorter than a scheduler's slice: where other programs want this CPU too, some windows are the guest's alone.
constexpr std::chrono::milliseconds kWindow{2};
constexpr int kWindows = 8;
constexpr std::uint64_t kFirstTurns = 2'000;
constexpr std::uint64_t kMostTurns = std::uint64_t{1} << 30;

void runOnce(Vcpu& vcpu, std::uint64_t turns) {
  kvm_regs registers{};
  registers.rip = kCodeAddress;
  registers.rflags = 2;
  registers.rcx = turns;
  vcpu.setRegisters(registers);
  int error = EINTR;
  while (error == EINTR || error == EAGAIN) {
    error = vcpu.run();
  }
  if (error != 0) {
    throw systemError("KVM_RUN", error);
  }
  if (vcpu.state().exit_reason != KVM_EXIT_IO) {
    throw Error(ErrorCode::kUnavailable,
                "KVM cannot run a loop of three instructions: exit " + std::to_string(vcpu.state().exit_reason));
  }
}

}  // namespace

std::uint64_t fastestRate(const TimedRun& run) {
  for (std::uint64_t turns = kFirstTurns;; turns = std::min(turns * 2, kMostTurns)) {
    auto shortest = run(turns);
    for (int window = 1; window < kWindows && shortest >= kWindow; ++window) {
      shortest = std::min(shortest, run(turns));
    }
    if (shortest >= kWindow || turns == kMostTurns) {
      const double seconds = std::chrono::duration<double>(std::max(shortest, std::chrono::nanoseconds(1))).count();
      return static_cast<std::uint64_t>(static_cast<double>(turns * kInstructionsPerTurn) / seconds);
    }
  }
}

std::uint64_t measureInstructionRate(const Device& device) {
  const memory::Range range{0, kMemoryBytes};
  memory::GuestMemory memory({&range, 1});
  memory.write(kCodeAddress, kCode, "the probe");
  Vm vm = device.createVm();
  vm.setMemory(0, 0, memory.regions().front().host);
  Vcpu vcpu = vm.createVcpu(0, device.vcpuMapBytes());
  kvm_sregs special = vcpu.specialRegisters();
  special.cs.base = 0;
  special.cs.selector = 0;
  vcpu.setSpecialRegisters(special);

  runOnce(vcpu, 1);  // touches the page and whatever KVM sets up lazily
  return fastestRate([&vcpu](std::uint64_t turns) -> std::chrono::nanoseconds {
    const auto start = steady_clock::now();
    runOnce(vcpu, turns);
    return steady_clock::now() - start;
  });
}

}  // namespace vmmhost::kvm::probe
