#include "worker-kvm/devices_of.h"

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "vmmhost/error.h"
#include "worker-kvm/config/check.h"
#include "worker-kvm/pci/pvpanic.h"
#include "worker-kvm/pci/watchdog.h"
#include "worker-kvm/virtio/balloon/balloon.h"
#include "worker-kvm/virtio/block/block_device.h"
#include "worker-kvm/virtio/console/console.h"
#include "worker-kvm/virtio/net/net.h"
#include "worker-kvm/virtio/pci_transport.h"
#include "worker-kvm/virtio/rng/rng_device.h"
#include "worker-kvm/virtio/vsock/link.h"

namespace vmmhost::kvm {

namespace {

using virtio::balloon::Balloon;
using VirtioConsole = virtio::console::Console;

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

struct MadeVirtio {
  std::unique_ptr<virtio::Device> device;
  vm::DeviceControls controls;
};

vm::DeviceMaker virtioDevice(std::function<MadeVirtio(const vm::Platform&)> make) {
  return [make = std::move(make)](const vm::Platform& platform) {
    MadeVirtio made = make(platform);
    const virtio::TransportContext context{platform.memory, platform.messages, platform.doorbells, platform.calls,
                                           platform.wake};
    return vm::MadeDevice{std::make_unique<virtio::PciTransport>(std::move(made.device), context),
                          std::move(made.controls)};
  };
}

void addDisks(schema::VmConfig::Reader config, worker::Resources& resources, ConfiguredDevices& devices) {
  std::uint32_t index = 0;
  for (const auto disk : config.getDisks()) {
    auto options = std::make_shared<virtio::block::BlockOptions>();
    options->name = "blk" + std::to_string(index);
    options->file = resources.takeFile(disk.getFile().getResource());
    options->readOnly = disk.getReadOnly();
    options->serial = disk.getSerial().cStr();
    options->cache = readCache(disk.getCache());
    options->queues = static_cast<std::uint16_t>(config::queuesPerDisk(config));
    for (std::uint16_t queue = 0; queue < options->queues; ++queue) {
      options->rings.push_back(resources.takeRing());  // an empty one where there is none left
    }
    options->log = [](const std::string& line) { worker::log(worker::LogLevel::kWarning, line); };
    devices.makers.push_back(virtioDevice([options, index](const vm::Platform& platform) {
      auto full = std::make_shared<std::atomic<bool>>(false);
      options->full = [full, &wake = platform.wake]() {
        full->store(true);
        wake.signal();
      };
      MadeVirtio made;
      made.device = std::make_unique<virtio::block::BlockDevice>(std::move(*options));
      made.controls.disks.push_back({index, [full]() { return full->exchange(false); }});
      return made;
    }));
    ++index;
  }
}

void addNics(schema::VmConfig::Reader config, worker::Resources& resources, ConfiguredDevices& devices) {
  std::uint32_t index = 0;
  for (const auto nic : config.getNics()) {
    virtio::net::NetOptions options;
    options.name = "net" + std::to_string(index);
    if (const auto mac = config::parseMac(nic.getMac().cStr())) {
      options.mac = *mac;
    } else {
      const std::string field = "nics[" + std::to_string(index) + "].mac";
      throw Error(ErrorCode::kInvalidArgument, field + ": the host has chosen none").withField(field);
    }
    options.mtu = nic.getMtu();
    auto taps = std::make_shared<std::vector<Fd>>(resources.takeNic(index++));
    devices.makers.push_back(virtioDevice([options, taps](const vm::Platform&) {
      return MadeVirtio{std::make_unique<virtio::net::Net>(options, std::move(*taps)), {}};
    }));
  }
}

// One device, whose ports are the consoles that are not the serial port's.
void addConsoles(schema::VmConfig::Reader config, worker::Resources& resources, ConfiguredDevices& devices) {
  const auto consoles = config.getConsoles();
  if (consoles.size() == 0) {
    devices.serialConsole = resources.takeConsole(0);
    return;
  }
  auto sockets = std::make_shared<std::vector<Fd>>();
  std::map<std::uint32_t, std::size_t> ports;  // by console
  for (std::uint32_t index = 0; index < consoles.size(); ++index) {
    Fd socket = resources.takeConsole(index);
    if (consoles[index].getKind() == schema::Console::Kind::SERIAL) {
      devices.serialConsole = std::move(socket);
    } else {
      ports[index] = sockets->size();
      sockets->push_back(std::move(socket));
    }
  }
  if (sockets->empty()) {
    return;
  }
  devices.makers.push_back(virtioDevice([sockets, ports](const vm::Platform& platform) {
    virtio::console::ConsoleOptions options;
    options.ports.assign(sockets->size(), {"", true});
    io::EventThread& thread = platform.sharedThread(VirtioConsole::rulesFor(*sockets));
    auto device = std::make_unique<VirtioConsole>(thread, std::move(options), std::move(*sockets));
    MadeVirtio made;
    made.controls.resizeConsole = [ports, &console = *device](std::uint32_t index, std::uint16_t columns,
                                                              std::uint16_t rows) {
      if (const auto port = ports.find(index); port != ports.end()) {
        console.setSize(port->second, {columns, rows});
      }
    };
    made.device = std::move(device);
    return made;
  }));
}

void addVsock(schema::VmConfig::Reader config, worker::Events& events, kj::AsyncIoContext& io,
              ConfiguredDevices& devices) {
  if (!config.hasVsock() || !config.getVsock().getEnabled()) {
    return;
  }
  // Held by the maker, so that it is there until after the device's end.
  auto link = std::make_shared<virtio::vsock::Link>(io.unixEventPort, events.services());
  virtio::vsock::Options options;
  if (config.getVsock().getCid() != 0) {
    options.guestCid = config.getVsock().getCid();
  }
  options.firstDescriptor = static_cast<int>(config::descriptors(config));
  // Not all numbers that the host gives for it: some are for those that come and are refused.
  constexpr std::size_t kForWhatComes = 64;
  options.limits.maxConnections -= kForWhatComes;
  options.duplicates = false;
  devices.firstSocket = options.firstDescriptor;
  devices.makers.push_back(virtioDevice([options, link](const vm::Platform&) {
    auto device = std::make_unique<virtio::vsock::Vsock>(options, *link);
    MadeVirtio made;
    made.controls.connectVsock = [&vsock = *device](std::uint32_t port, Fd socket) {
      vsock.connectToGuest(std::move(socket), port);
    };
    made.device = std::move(device);
    return made;
  }));
}

void addBalloon(schema::VmConfig::Reader config, ConfiguredDevices& devices) {
  if (!config.hasBalloon()) {
    return;
  }
  virtio::balloon::BalloonOptions options;
  options.targetBytes = config.getBalloon().getTargetSize();
  options.deflateOnOom = config.getBalloon().getDeflateOnOom();
  options.freePageReporting = config.getBalloon().getFreePageReporting();
  devices.makers.push_back(virtioDevice([options](const vm::Platform& platform) {
    io::EventThread& thread = platform.sharedThread(Balloon::rulesFor(platform.memory));
    auto device = std::make_unique<Balloon>(thread, platform.memory, options);
    MadeVirtio made;
    made.controls.setBalloonTarget = [&balloon = *device](std::uint64_t bytes) { balloon.setTarget(bytes); };
    made.controls.balloonActual = [&balloon = *device]() { return balloon.actual(); };
    made.device = std::move(device);
    return made;
  }));
}

void addMachineDevices(schema::VmConfig::Reader config, ConfiguredDevices& devices) {
  if (config.hasRng() && config.getRng().getEnabled()) {
    devices.makers.push_back(virtioDevice([](const vm::Platform& platform) {
      io::EventThread& thread = platform.sharedThread(virtio::rng::RngDevice::rules());
      return MadeVirtio{std::make_unique<virtio::rng::RngDevice>(thread, virtio::rng::RngOptions()), {}};
    }));
  }
  devices.makers.push_back([](const vm::Platform& platform) {
    return vm::MadeDevice{std::make_unique<pci::Pvpanic>(platform.machine), {}};
  });
  if (config.hasWatchdog()) {
    devices.makers.push_back([](const vm::Platform& platform) {
      io::EventThread& thread = platform.sharedThread(pci::Watchdog::rules());
      return vm::MadeDevice{std::make_unique<pci::Watchdog>(platform.machine, platform.calls, thread), {}};
    });
  }
}

}  // namespace

ConfiguredDevices devicesOf(schema::VmConfig::Reader config, worker::Resources& resources, worker::Events& events,
                            kj::AsyncIoContext& io) {
  ConfiguredDevices devices;
  addDisks(config, resources, devices);
  addNics(config, resources, devices);
  addConsoles(config, resources, devices);
  addVsock(config, events, io, devices);
  addBalloon(config, devices);
  addMachineDevices(config, devices);
  return devices;
}

}  // namespace vmmhost::kvm
