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

vm::DeviceMaker virtioDevice(std::function<std::unique_ptr<virtio::Device>(const vm::Platform&)> make) {
  return [make = std::move(make)](const vm::Platform& platform) {
    return std::make_unique<virtio::PciTransport>(
        make(platform), virtio::TransportContext{platform.memory, platform.messages, platform.doorbells, platform.calls,
                                                 platform.wake});
  };
}

void addDisks(schema::VmConfig::Reader config, worker::Resources& resources, ConfiguredDevices& devices) {
  auto full = std::make_shared<std::atomic<std::uint64_t>>(0);  // a bit for each disk
  devices.controls.takeFullDisks = [full]() { return full->exchange(0); };
  std::uint32_t index = 0;
  for (const auto disk : config.getDisks()) {
    auto options = std::make_shared<virtio::block::BlockOptions>();
    const std::uint64_t bit = std::uint64_t{1} << index;
    options->name = "blk" + std::to_string(index++);
    options->file = resources.takeFile(disk.getFile().getResource());
    options->readOnly = disk.getReadOnly();
    options->serial = disk.getSerial().cStr();
    options->cache = readCache(disk.getCache());
    options->queues = static_cast<std::uint16_t>(config::queuesPerDisk(config));
    for (std::uint16_t queue = 0; queue < options->queues; ++queue) {
      options->rings.push_back(resources.takeRing());  // an empty one where there is none left
    }
    options->log = [](const std::string& line) { worker::log(worker::LogLevel::kWarning, line); };
    devices.makers.push_back(virtioDevice([options, full, bit](const vm::Platform& platform) {
      options->full = [full, bit, &wake = platform.wake]() {
        full->fetch_or(bit);
        wake.signal();
      };
      return std::make_unique<virtio::block::BlockDevice>(std::move(*options));
    }));
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
      throw Error(ErrorCode::kInvalidArgument, "nics[" + std::to_string(index) + "].mac: the host has chosen none");
    }
    options.mtu = nic.getMtu();
    auto taps = std::make_shared<std::vector<Fd>>(resources.takeNic(index++));
    devices.makers.push_back(virtioDevice([options, taps](const vm::Platform&) {
      return std::make_unique<virtio::net::Net>(options, std::move(*taps));
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
  auto made = std::make_shared<VirtioConsole*>(nullptr);
  devices.makers.push_back(virtioDevice([sockets, made](const vm::Platform& platform) {
    virtio::console::ConsoleOptions options;
    options.ports.assign(sockets->size(), {"", true});
    io::EventThread& thread = platform.sharedThread(VirtioConsole::rulesFor(*sockets));
    auto device = std::make_unique<VirtioConsole>(thread, std::move(options), std::move(*sockets));
    *made = device.get();
    return device;
  }));
  devices.controls.resizeConsole = [ports, made](std::uint32_t console, std::uint16_t columns, std::uint16_t rows) {
    if (const auto port = ports.find(console); port != ports.end()) {
      (*made)->setSize(port->second, {columns, rows});
    }
  };
}

void addVsock(schema::VmConfig::Reader config, worker::Events& events, kj::AsyncIoContext& io,
              ConfiguredDevices& devices) {
  if (!config.hasVsock() || !config.getVsock().getEnabled()) {
    return;
  }
  // Held by both functions, so that it is there until after the device's end.
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
    link->join(*device);
    return device;
  }));
  devices.controls.connectVsock = [link](std::uint32_t port, Fd socket) {
    return link->connectToGuest(port, std::move(socket));
  };
}

void addBalloon(schema::VmConfig::Reader config, ConfiguredDevices& devices) {
  if (!config.hasBalloon()) {
    return;
  }
  virtio::balloon::BalloonOptions options;
  options.targetBytes = config.getBalloon().getTargetSize();
  options.deflateOnOom = config.getBalloon().getDeflateOnOom();
  options.freePageReporting = config.getBalloon().getFreePageReporting();
  auto made = std::make_shared<Balloon*>(nullptr);
  devices.makers.push_back(virtioDevice([options, made](const vm::Platform& platform) {
    io::EventThread& thread = platform.sharedThread(Balloon::rulesFor(platform.memory));
    auto device = std::make_unique<Balloon>(thread, platform.memory, options);
    *made = device.get();
    return device;
  }));
  devices.controls.setBalloonTarget = [made](std::uint64_t bytes) { (*made)->setTarget(bytes); };
  devices.controls.balloonActual = [made]() { return (*made)->actual(); };
}

void addMachineDevices(schema::VmConfig::Reader config, ConfiguredDevices& devices) {
  if (config.hasRng() && config.getRng().getEnabled()) {
    devices.makers.push_back(virtioDevice([](const vm::Platform& platform) {
      return std::make_unique<virtio::rng::RngDevice>(platform.sharedThread(virtio::rng::RngDevice::rules()),
                                                      virtio::rng::RngOptions());
    }));
  }
  devices.makers.push_back(
      [](const vm::Platform& platform) { return std::make_unique<pci::Pvpanic>(platform.machine); });
  if (config.hasWatchdog()) {
    devices.makers.push_back([](const vm::Platform& platform) {
      return std::make_unique<pci::Watchdog>(platform.machine, platform.calls,
                                             platform.sharedThread(pci::Watchdog::rules()));
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
