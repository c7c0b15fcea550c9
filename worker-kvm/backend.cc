#include "worker-kvm/backend.h"

#include <sys/eventfd.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "vmmhost/counters.h"
#include "vmmhost/error.h"
#include "worker-kvm/config/check.h"
#include "worker-kvm/confine/confine.h"
#include "worker-kvm/devices_of.h"
#include "worker-kvm/smbios/tables.h"
#include "worker-kvm/vm/machine.h"

namespace vmmhost::kvm {

namespace {

vm::Parameters readParameters(schema::VmConfig::Reader config, worker::Resources& resources) {
  vm::Parameters parameters;
  parameters.cpus = config.getCpus().getCount();
  parameters.memoryBytes = config.getMemory().getSize();
  if (config.getMemory().getShared()) {
    parameters.memoryFile = resources.takeMemory();
    if (!parameters.memoryFile) {
      throw Error(ErrorCode::kUnsupported, "memory.shared: this host makes no memory that can be shared",
                  "install a host of this worker's version")
          .withField("memory.shared");
    }
  }
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
  return parameters;
}

// Something on each free number below `first`, so that what comes from now on has that or a higher one: no filter lets
// duplicate a descriptor to where it should be.
std::vector<Fd> fillDescriptors(int first) {
  std::vector<Fd> fillers;
  while (first > 0) {
    Fd filler(::eventfd(0, EFD_CLOEXEC));
    if (!filler && errno != EMFILE) {
      throw systemError("eventfd", errno);
    }
    if (!filler || filler.get() >= first) {
      break;  // the caller's limits may leave nothing from `first` on
    }
    fillers.push_back(std::move(filler));
  }
  return fillers;
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
  parts.resetsByWatchdog = config.hasWatchdog() && config.getWatchdog().getAction() == schema::Watchdog::Action::RESET;
  parts.counters = openCounters(resources);
  ConfiguredDevices devices = devicesOf(config, resources, events, io);
  parts.console = std::move(devices.serialConsole);
  const int firstSocket = devices.firstSocket;
  {
    // /dev/kvm could make VMs without end: it is closed before anything of the guest runs.
    const Device device(resources.takeDevice("kvm"));
    vm::Parameters parameters = readParameters(config, resources);
    parameters.devices = std::move(devices.makers);
    parts.machine = std::make_unique<vm::VirtualMachine>(device, std::move(parameters), *parts.counters);
  }
  const vm::VirtualMachine& machine = *parts.machine;
  parts.machine->startThreads(
      [&machine](Vcpu& vcpu) { return confine::vcpuFilter(vcpu.descriptor(), machine.signalDescriptors()); },
      confine::loaderFilter(machine.bootDescriptors(), machine.wake().descriptor()));
  auto created = std::make_unique<vm::KvmMachine>(std::move(parts), events, io);
  auto parked = created->whenParked();
  return parked.then(
      [created = std::move(created), firstSocket]() mutable -> kj::Promise<std::unique_ptr<worker::Machine>> {
        try {
          created->keep(fillDescriptors(firstSocket));
          confine::enterControl();
        } catch (const Error& error) {
          return worker::fail<std::unique_ptr<worker::Machine>>(error);
        }
        return std::unique_ptr<worker::Machine>(std::move(created));
      });
}

}  // namespace vmmhost::kvm
