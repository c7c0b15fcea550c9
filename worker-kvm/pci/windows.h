// The addresses that the PCI host bridge hands on to functions.
#pragma once

#include <optional>

#include "worker-kvm/arch/x86_64/layout.h"
#include "worker-kvm/devices/bus.h"
#include "worker-kvm/memory/guest_memory.h"

namespace vmmhost::kvm::pci {

struct Windows {
  memory::Range ports{arch::kPciPortsStart, arch::kPciPorts};
  memory::Range memory32{arch::kPciWindow32Start, arch::kPciWindow32Bytes};
  std::optional<memory::Range> memory64;

  // All of it lies in one of them.
  bool hold(devices::Space space, std::uint64_t address, std::uint64_t bytes) const noexcept {
    if (space == devices::Space::kPorts) {
      return holds(ports, address, bytes);
    }
    return holds(memory32, address, bytes) || (memory64 && holds(*memory64, address, bytes));
  }
  static bool holds(const memory::Range& window, std::uint64_t address, std::uint64_t bytes) noexcept {
    return address >= window.start && bytes <= window.bytes && address - window.start <= window.bytes - bytes;
  }
};

}  // namespace vmmhost::kvm::pci
