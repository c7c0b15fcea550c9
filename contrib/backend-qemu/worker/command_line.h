// QEMU's arguments for a machine: a pure function, so that tests see every one of them.
#pragma once

#include <string>
#include <vector>

#include "config/machine_spec.h"

namespace qemubackend {

// Descriptor numbers as QEMU will find them.
struct ChildDescriptors {
  int qmp = -1;
  std::vector<int> consoles;
  std::string kernelPath;  // QEMU opens kernels by path only (/dev/fdset is refused): /proc/self/fd/N
  std::string initrdPath;  // empty: none
  std::vector<int> disks;  // in the order of MachineSpec::disks
  int kvm = -1;            // /dev/kvm, for accel=kvm
};

// argv without its first element. Text that a user chose goes into JSON or into an argument of its own, never between
// commas of QEMU's option syntax.
std::vector<std::string> qemuArguments(const MachineSpec& spec, const ChildDescriptors& descriptors);

}  // namespace qemubackend
