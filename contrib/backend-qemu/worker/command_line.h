// QEMU's arguments for a machine: a pure function, so that tests see every one of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/machine_spec.h"

namespace qemubackend {

// The name by which QEMU knows a disk begins so; its number follows.
inline constexpr const char* kDiskNode = "disk";

// Descriptor numbers as QEMU will find them.
struct ChildDescriptors {
  int qmp = -1;
  std::vector<int> consoles;  // in the order of MachineSpec::consoles
  std::string kernelPath;     // QEMU opens kernels by path only (/dev/fdset is refused): /proc/self/fd/N
  std::string initrdPath;     // empty: none
  std::vector<int> disks;     // in the order of MachineSpec::disks
  std::vector<int> nics;      // in the order of MachineSpec::nics; -1: attached to nothing
  int kvm = -1;               // /dev/kvm, for accel=kvm
};

// argv without its first element. Text that a user chose goes into JSON or into an argument of its own, never between
// commas of QEMU's option syntax.
std::vector<std::string> qemuArguments(const MachineSpec& spec, const ChildDescriptors& descriptors);

// What QEMU makes of a size of memory: it rounds up to whole 8 KiB.
std::uint64_t roundedMemory(std::uint64_t bytes);

struct QmpCommand {
  std::string name;
  std::string arguments;  // a JSON object
};

// What no argument says: commands for before any guest code runs, in this order.
std::vector<QmpCommand> firstCommands(const MachineSpec& spec, const ChildDescriptors& descriptors);

// The command for a balloon of `target` bytes out of `memory`.
QmpCommand balloonCommand(std::uint64_t memory, std::uint64_t target);

}  // namespace qemubackend
