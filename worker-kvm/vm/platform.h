// What devices are made with.
#pragma once

#include <functional>
#include <memory>

#include "worker-kvm/devices/machine_control.h"
#include "worker-kvm/devices/signals.h"
#include "worker-kvm/io/event_thread.h"
#include "worker-kvm/memory/guest_memory.h"
#include "worker-kvm/pci/function.h"
#include "worker-kvm/threads/control_calls.h"
#include "worker-kvm/threads/wake.h"
#include "worker-kvm/vm/device_controls.h"

namespace vmmhost::kvm::vm {

// All of it outlives the devices.
struct Platform {
  const memory::GuestMemory& memory;
  devices::MessageSource& messages;
  devices::Doorbells& doorbells;
  devices::MachineControl& machine;
  threads::ControlCalls& calls;
  const threads::Wake& wake;  // of the control thread
  // One thread for all devices that are quiet most of the time; made when the first one asks. Each says what its part
  // of the work needs, beside writing to the descriptors of interrupts.
  std::function<io::EventThread&(const confine::Rules&)> sharedThread;
};

struct MadeDevice {
  std::unique_ptr<pci::Function> function;
  DeviceControls controls;  // of what `function` is; used while it is there
};

// Makes one PCI function of a machine. The machine knows no kind of device: who configures it says which there are.
// Called once, by the control thread; kept as long as the machine, so that what it captured outlives its device. Throws
// Error.
using DeviceMaker = std::function<MadeDevice(const Platform&)>;

}  // namespace vmmhost::kvm::vm
