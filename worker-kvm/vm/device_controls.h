// What the host may ask of devices, whatever kind they are of.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "vmmhost/fd.h"

namespace vmmhost::kvm::vm {

// Of one device, or of all that a machine has; empty functions where there is no such device. By the control thread,
// while the devices are there. Nothing throws if not said otherwise.
struct DeviceControls {
  std::function<void(std::uint64_t bytes)> setBalloonTarget;  // throws Error
  std::function<std::uint64_t()> balloonActual;               // bytes
  std::function<void(std::uint32_t console, std::uint16_t columns, std::uint16_t rows)> resizeConsole;
  std::function<void(std::uint32_t port, Fd socket)> connectVsock;  // throws Error
  struct Disk {
    std::uint32_t index = 0;  // of the configuration's disks
    // True: the host's file system had no room for it since this was last asked. Whoever makes it so wakes the control
    // thread.
    std::function<bool()> takeFull;
  };
  std::vector<Disk> disks;

  // And what may be asked of one more device. Of a balloon, consoles and vsock a machine has one device at most.
  void add(DeviceControls more);
};

}  // namespace vmmhost::kvm::vm
