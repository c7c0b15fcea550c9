// How fast KVM runs guest code on this machine: tells hardware from software that emulates each instruction.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>

#include "worker-kvm/kvm/device.h"

namespace vmmhost::kvm::probe {

// Slower than this is emulation. Measured: 1 to 3 million a second where KVM emulates; hardware of the last fifteen
// years does more than a thousand million, and hardware virtualization that QEMU's translator provides some hundred.
inline constexpr std::uint64_t kHardwareInstructionsPerSecond = 50'000'000;

// Runs that many turns of a loop of two instructions and returns how long it took.
using TimedRun = std::function<std::chrono::nanoseconds(std::uint64_t turns)>;

// Instructions a second in the fastest of several short windows: what else ran on the CPU in the others says nothing.
std::uint64_t fastestRate(const TimedRun& run);

// Runs a tiny loop in a VM of its own on the calling thread, for 20 to 100 ms, and returns instructions a second.
// Throws Error that names the request that failed.
std::uint64_t measureInstructionRate(const Device& device);

}  // namespace vmmhost::kvm::probe
