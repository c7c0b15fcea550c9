// The devices that a VM's configuration asks for.
#pragma once

#include <kj/async-io.h>

#include <vector>

#include "vmmhost/fd.h"
#include "vmmhost/schema/vm.capnp.h"
#include "vmmhost/worker/worker.h"
#include "worker-kvm/vm/platform.h"

namespace vmmhost::kvm {

struct ConfiguredDevices {
  std::vector<vm::DeviceMaker> makers;  // in the order of their device numbers
  int firstSocket = 0;  // the number from which on the sockets of vsock connections are to be; 0: whatever it is
  Fd serialConsole;     // empty: nobody is at the serial port
};

// Of a configuration that was checked. Takes what the devices need out of `resources`; `events` and `io` outlive the
// devices. Throws Error.
ConfiguredDevices devicesOf(schema::VmConfig::Reader config, worker::Resources& resources, worker::Events& events,
                            kj::AsyncIoContext& io);

}  // namespace vmmhost::kvm
