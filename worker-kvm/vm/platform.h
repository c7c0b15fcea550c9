// What devices are made with.
#pragma once

#include <functional>
#include <memory>

#include "worker-kvm/devices/machine_control.h"
#include "worker-kvm/devices/signals.h"
#include "worker-kvm/io/event_thread.h"
#include "worker-kvm/memory/guest_memory.h"
#include "worker-kvm/pci/function.h"
#include "worker-kvm/vm/control_calls.h"
#include "worker-kvm/vm/wake.h"

namespace vmmhost::kvm::vm {

// All of it outlives the devices.
struct Platform {
  const memory::GuestMemory& memory;
  devices::MessageSource& messages;
  devices::Doorbells& doorbells;
  devices::MachineControl& machine;
  ControlCalls& calls;
  const Wake& wake;  // of the control thread
  // One thread for all devices that are quiet most of the time; made when the first one asks. Each says what its part
  // of the work needs, beside writing to the descriptors of interrupts.
  std::function<io::EventThread&(const confine::Rules&)> sharedThread;
};

// Makes one PCI function of a machine. The machine knows no kind of device: who configures it says which there are.
using DeviceMaker = std::function<std::unique_ptr<pci::Function>(const Platform&)>;

}  // namespace vmmhost::kvm::vm
