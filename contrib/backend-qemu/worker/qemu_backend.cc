#include "worker/qemu_backend.h"

#include "config/machine_spec.h"
#include "worker/qemu_machine.h"

namespace qemubackend {

namespace worker = vmmhost::worker;
using vmmhost::Error;
using vmmhost::ErrorCode;

std::vector<std::string> QemuBackend::features() const {
  return {"qemu"};
}

kj::Promise<std::unique_ptr<worker::Machine>> QemuBackend::create(vmmhost::schema::VmConfig::Reader config,
                                                                  worker::Resources& resources, worker::Events& events,
                                                                  kj::AsyncIoContext& io) {
  const MachineSpec spec = readConfig(config);
  MachineFiles files;
  files.kernel = resources.takeFile(spec.kernelResource);
  if (spec.hasInitrd) {
    files.initrd = resources.takeFile(spec.initrdResource);
  }
  for (const DiskSpec& disk : spec.disks) {
    files.disks.push_back(resources.takeFile(disk.resource));
  }
  for (std::uint32_t index = 0; index < spec.consoles.size(); ++index) {
    files.consoles.push_back(resources.takeConsole(index));
  }
  for (std::uint32_t index = 0; index < spec.nics.size(); ++index) {
    // One queue: QEMU serves all of a card on one thread, so that more bring nothing but the right to attach and detach
    // them (TUNSETQUEUE), which the jail does not give. The kernel takes those that are closed here from the device.
    std::vector<vmmhost::Fd> queues = resources.takeNic(index);
    files.nics.push_back(queues.empty() ? vmmhost::Fd() : std::move(queues.front()));
  }
  if (spec.kvm) {
    files.kvm = resources.takeDevice("kvm");
    if (!files.kvm) {
      throw Error(ErrorCode::kUnavailable, "platform.options accel=kvm: /dev/kvm was not attached");
    }
  }
  QemuOptions options;
  options.log = [](const std::string& line) { worker::log(worker::LogLevel::kWarning, "qemu: " + line); };
  return QemuMachine::launch(spec, std::move(files), std::move(options), events, io)
      .then([](std::unique_ptr<QemuMachine> machine) -> std::unique_ptr<worker::Machine> { return machine; });
}

}  // namespace qemubackend
