// The addresses that the PCI host bridge hands on to functions.
#pragma once

#include "worker-kvm/arch/x86_64/layout.h"
#include "worker-kvm/devices/bus.h"
#include "worker-kvm/memory/guest_memory.h"

namespace vmmhost::kvm::pci {

inline memory::Range windowOf(devices::Space space) noexcept {
  return space == devices::Space::kPorts ? memory::Range{arch::kPciPortsStart, arch::kPciPorts}
                                         : memory::Range{arch::kPciWindow32Start, arch::kPciWindow32Bytes};
}

}  // namespace vmmhost::kvm::pci
