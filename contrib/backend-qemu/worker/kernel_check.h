// What QEMU is given to boot. QEMU trusts its kernel: one that is cut short or points outside memory ends it with a
// word or two, or starts a guest that never says anything. Here it is refused by name.
#pragma once

#include <cstdint>

#include "vmmhost/fd.h"

namespace qemubackend {

// Accepts an ELF file for x86 with a PVH entry whose segments fit into the memory of a q35 machine, and a whole Linux
// bzImage. Returns the address above what is known to be loaded. Throws Error, beginning with "boot.kernel: ".
std::uint64_t checkKernel(const vmmhost::Fd& file, std::uint64_t memoryBytes);

// QEMU puts an initrd to the top of the memory below 4 GiB. Throws Error, beginning with "boot.initrd: ".
void checkInitrd(const vmmhost::Fd& file, std::uint64_t memoryBytes, std::uint64_t kernelEnd);

}  // namespace qemubackend
