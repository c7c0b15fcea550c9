#include "worker-kvm/backend.h"

#include "vmmhost/counters.h"
#include "vmmhost/error.h"
#include "worker-kvm/config/check.h"
#include "worker-kvm/confine/confine.h"
#include "worker-kvm/pci/pvpanic.h"
#include "worker-kvm/pci/watchdog.h"
#include "worker-kvm/smbios/tables.h"
#include "worker-kvm/virtio/block/block_device.h"
#include "worker-kvm/virtio/pci_transport.h"
#include "worker-kvm/virtio/rng/rng_device.h"
#include "worker-kvm/vm/machine.h"

namespace vmmhost::kvm {

namespace {

virtio::block::Cache readCache(schema::Disk::Cache cache) {
  switch (cache) {
    case schema::Disk::Cache::DIRECT:
      return virtio::block::Cache::kDirect;
    case schema::Disk::Cache::UNSAFE:
      return virtio::block::Cache::kUnsafe;
    case schema::Disk::Cache::WRITEBACK:
      break;
  }
  return virtio::block::Cache::kWriteback;
}

vm::DeviceMaker virtioDevice(std::function<std::unique_ptr<virtio::Device>(const vm::Platform&)> make) {
  return [make = std::move(make)](const vm::Platform& platform) {
    return std::make_unique<virtio::PciTransport>(
        make(platform), virtio::TransportContext{platform.memory, platform.messages, platform.doorbells,
                                                 platform.calls, platform.wake});
  };
}

void addDisks(schema::VmConfig::Reader config, worker::Resources& resources, vm::Parameters& parameters) {
  std::uint32_t index = 0;
  for (const auto disk : config.getDisks()) {
    auto options = std::make_shared<virtio::block::BlockOptions>();
    options->name = "blk" + std::to_string(index++);
    options->file = resources.takeFile(disk.getFile().getResource());
    options->readOnly = disk.getReadOnly();
    options->serial = disk.getSerial().cStr();
    options->cache = readCache(disk.getCache());
    if (rings::Ring ring = resources.takeRing(); ring.descriptor) {
      options->rings.push_back(std::move(ring));
    }
    options->log = [](const std::string& line) { worker::log(worker::LogLevel::kWarning, line); };
    parameters.devices.push_back(virtioDevice(
        [options](const vm::Platform&) { return std::make_unique<virtio::block::BlockDevice>(std::move(*options)); }));
  }
}

// The devices that a configuration asks for, in the order of their device numbers, and the rules of the thread that the
// quiet ones share.
void addDevices(schema::VmConfig::Reader config, worker::Resources& resources, vm::Parameters& parameters) {
  addDisks(config, resources, parameters);
  if (config.hasRng() && config.getRng().getEnabled()) {
    confine::append(parameters.sharedThreadRules, virtio::rng::RngDevice::rules());
    parameters.devices.push_back(virtioDevice([](const vm::Platform& platform) {
      return std::make_unique<virtio::rng::RngDevice>(platform.sharedThread(), virtio::rng::RngOptions());
    }));
  }
  parameters.devices.push_back(
      [](const vm::Platform& platform) { return std::make_unique<pci::Pvpanic>(platform.machine); });
  if (config.hasWatchdog()) {
    confine::append(parameters.sharedThreadRules, pci::Watchdog::rules());
    parameters.devices.push_back([](const vm::Platform& platform) {
      return std::make_unique<pci::Watchdog>(platform.machine, platform.calls, platform.sharedThread());
    });
  }
}

vm::Parameters readParameters(schema::VmConfig::Reader config, worker::Resources& resources) {
  vm::Parameters parameters;
  parameters.cpus = config.getCpus().getCount();
  parameters.memoryBytes = config.getMemory().getSize();
  parameters.sharedMemory = config.getMemory().getShared();
  parameters.irqchip = config::wantsFullIrqchip(config) ? vm::IrqchipMode::kFull : vm::IrqchipMode::kSplit;
  const auto boot = config.getBoot();
  parameters.boot.commandLine = boot.getCmdline().cStr();
  parameters.boot.kernel =
      std::make_unique<boot::FileSource>(resources.takeFile(boot.getKernel().getResource()), "boot.kernel");
  if (boot.getInitrd().getResource() != 0) {
    parameters.boot.initrd =
        std::make_unique<boot::FileSource>(resources.takeFile(boot.getInitrd().getResource()), "boot.initrd");
  }
  parameters.uuid = smbios::parseUuid(config.getPlatform().getUuid().cStr());
  addDevices(config, resources, parameters);
  return parameters;
}

std::unique_ptr<counters::WorkerPage> openCounters(worker::Resources& resources) {
  Fd page = resources.takeCounters();
  return page ? std::make_unique<counters::WorkerPage>(std::move(page)) : std::make_unique<counters::WorkerPage>();
}

}  // namespace

std::vector<std::string> KvmBackend::features() const {
  return {"pvh", "linux64", "serial", "acpi", "pci"};
}

void KvmBackend::confine() {
  confine::enterCreation();
}

kj::Promise<std::unique_ptr<worker::Machine>> KvmBackend::create(schema::VmConfig::Reader config,
                                                                 worker::Resources& resources, worker::Events& events,
                                                                 kj::AsyncIoContext& io) {
  config::check(config);
  vm::KvmMachine::Parts parts;
  parts.resetsByWatchdog =
      config.hasWatchdog() && config.getWatchdog().getAction() == schema::Watchdog::Action::RESET;
  parts.console = resources.takeConsole(0);
  parts.counters = openCounters(resources);
  {
    // /dev/kvm could make VMs without end: it is closed before anything of the guest runs.
    const Device device(resources.takeDevice("kvm"));
    parts.machine = std::make_unique<vm::VirtualMachine>(device, readParameters(config, resources), *parts.counters);
  }
  const vm::VirtualMachine& machine = *parts.machine;
  parts.machine->startThreads(
      [&machine](Vcpu& vcpu) { return confine::vcpuFilter(vcpu.descriptor(), machine.signalDescriptors()); });
  auto created = std::make_unique<vm::KvmMachine>(std::move(parts), events, io);
  auto parked = created->whenParked();
  return parked.then([created = std::move(created)]() mutable -> kj::Promise<std::unique_ptr<worker::Machine>> {
    try {
      confine::enterControl();
    } catch (const Error& error) {
      return worker::fail<std::unique_ptr<worker::Machine>>(error);
    }
    return std::unique_ptr<worker::Machine>(std::move(created));
  });
}

}  // namespace vmmhost::kvm
