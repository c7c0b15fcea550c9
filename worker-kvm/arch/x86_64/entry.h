// How the first virtual CPU begins.
#pragma once

#include <cstdint>

namespace vmmhost::kvm::arch {

enum class EntryMode : std::uint8_t {
  // Xen's docs/misc/pvh.pandoc: 32-bit protected mode without paging, EBX = kStartInfo.
  kPvh,
  // Linux's Documentation/arch/x86/boot.rst, "64-bit Boot Protocol": long mode, 4 GiB mapped one to one by the page
  // tables at kPageMapLevel4, the descriptor table at kGdt, RSI = kZeroPage.
  kLinux64,
};

// What boot::load() leaves in guest memory is entered so; arch::enter() makes registers of it.
struct EntryState {
  EntryMode mode = EntryMode::kPvh;
  std::uint64_t address = 0;  // of the first instruction; below 4 GiB

  bool operator==(const EntryState&) const = default;
};

}  // namespace vmmhost::kvm::arch
