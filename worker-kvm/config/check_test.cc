#include "worker-kvm/config/check.h"

#include <capnp/message.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "vmmhost/config_fields.h"
#include "vmmhost/error.h"

namespace vmmhost::kvm::config {
namespace {

using Change = std::function<void(schema::VmConfig::Builder)>;

// The error's code and message, or "accepted".
std::string answer(const Change& change) {
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<schema::VmConfig>();
  config.setName("test");
  config.initBoot().initKernel().setPath("/kernel");
  change(config);
  try {
    check(config.asReader());
  } catch (const Error& error) {
    EXPECT_NE(error.field(), "");
    EXPECT_TRUE(error.message().starts_with(error.field() + ": ")) << error.field() << " of " << error.message();
    return std::string(errorCodeName(error.code())) + " " + error.message();
  }
  return "accepted";
}

void expectRefusal(const std::string& start, const Change& change) {
  const std::string text = answer(change);
  EXPECT_TRUE(text.starts_with(start + ":")) << text << " instead of " << start;
}

TEST(Check, plainConfiguration_isAccepted) {
  EXPECT_EQ(answer([](auto) {}), "accepted");
  EXPECT_EQ(answer([](auto config) {
              config.initCpus().setCount(64);
              config.getCpus().setMax(64);
              config.getCpus().setCoresPerSocket(64);
              config.initMemory().setShared(true);
              auto consoles = config.initConsoles(3);
              consoles[0].setKind(schema::Console::Kind::VIRTIO);
              consoles[2].setKind(schema::Console::Kind::VIRTIO);
              config.initRng();
              config.initVsock().setCid(3);
              config.initBalloon().setTargetSize(config.getMemory().getSize());
              auto nics = config.initNics(2);
              nics[0].setMac("52:54:00:AB:cd:ef");
              nics[0].setMtu(68);
              config.initWatchdog();
              config.initPlatform().setUuid("123e4567-e89b-12d3-a456-426614174000");
              config.getBoot().initInitrd().setResource(2);
              config.getBoot().setCmdline(std::string(2047, 'x'));
            }),
            "accepted");
}

TEST(Check, deviceThatIsNotThere_isUnsupportedByName) {
  expectRefusal("unsupported disks[16]", [](auto config) { config.initDisks(17); });
  expectRefusal("unsupported disks[1].format",
                [](auto config) { config.initDisks(2)[1].setFormat(schema::Disk::Format::QCOW2); });
  expectRefusal("invalidArgument disks[0].serial",
                [](auto config) { config.initDisks(1)[0].setSerial("123456789012345678901"); });
  expectRefusal("unsupported nics[8]", [](auto config) { config.initNics(9); });
  expectRefusal("unsupported shares[0]", [](auto config) { config.initShares(1); });
  expectRefusal("unsupported watchdog.action",
                [](auto config) { config.initWatchdog().setAction(schema::Watchdog::Action::PAUSE); });
  expectRefusal("unsupported consoles[1].kind", [](auto config) { config.initConsoles(2); });
  expectRefusal("unsupported consoles[16]", [](auto config) { config.initConsoles(17); });
  expectRefusal("unsupported boot.firmware", [](auto config) { config.getBoot().initFirmware().setPath("/f"); });
}

// A field that is added to vm.capnp is in neither list until somebody has thought of it.
TEST(Check, everyField_isServedOrRefusedByName) {
  using Config = schema::VmConfig::Builder;
  ServedFields served;
  served.names = {
      "name",
      "boot",
      "boot.kernel",
      "boot.kernel.path",
      "boot.kernel.resource",
      "boot.initrd",
      "boot.initrd.path",
      "boot.initrd.resource",
      "boot.cmdline",
      "boot.firmware",  // without anything in it
      "cpus",
      "cpus.count",
      "memory",
      "memory.size",
      "memory.shared",
      "disks",
      "disks.file",
      "disks.file.path",
      "disks.file.resource",
      "disks.readOnly",
      "disks.id",  // the host's, which tells them apart by it
      "disks.serial",
      "disks.cache",
      "disks.cache.direct",
      "disks.cache.unsafe",
      "nics",
      "nics.id",
      "nics.mac",
      "nics.mtu",
      "nics.attachment.tap",
      "consoles",
      "consoles.kind",
      "consoles.kind.virtio",
      "vsock",
      "vsock.enabled",  // that is: not there
      "vsock.cid",
      "rng",
      "rng.enabled",
      "balloon",
      "balloon.targetSize",
      "balloon.deflateOnOom",
      "balloon.freePageReporting",
      "watchdog",
      "watchdog.action",
      "watchdog.action.powerOff",
      "platform",
      "platform.uuid",
      "platform.options",
      "platform.options.name",
      "platform.options.value",
  };
  const auto option = [](Config config) {
    auto entry = config.initPlatform().initOptions(1)[0];
    entry.setName("irqchip");
    entry.setValue("full");
  };
  served.values = {
      {"cpus.max", [](Config config) { config.initCpus().setMax(2); }},
      {"cpus.coresPerSocket", [](Config config) { config.initCpus().setCoresPerSocket(2); }},
      {"memory.size", [](Config config) { config.initMemory().setSize(64 << 20); }},
      {"nics.mac", [](Config config) { config.initNics(1)[0].setMac("52:54:00:00:00:01"); }},
      {"nics.mtu", [](Config config) { config.initNics(1)[0].setMtu(1500); }},
      {"vsock.cid", [](Config config) { config.initVsock().setCid(3); }},
      {"platform.uuid", [](Config config) { config.initPlatform().setUuid("123e4567-e89b-12d3-a456-426614174000"); }},
      {"platform.options", option},
      {"platform.options.name", option},
      {"platform.options.value", option},
  };
  EXPECT_EQ(findUnaccountedFields(
                served, [](Config config) { config.initBoot().initKernel().setPath("/kernel"); }, check),
            std::vector<std::string>{});
}

TEST(Check, settingsOfDevices_haveTheirBounds) {
  for (const char* mac : {"x", "52:54:00:12:34", "52:54:00:12:34:5g", "52-54-00-12-34-56", "01:54:00:12:34:56",
                          "52:54:00:12:34:567", "+1:54:00:12:34:56"}) {
    expectRefusal("invalidArgument nics[0].mac", [mac](auto config) { config.initNics(1)[0].setMac(mac); });
  }
  expectRefusal("invalidArgument nics[1].mtu", [](auto config) { config.initNics(2)[1].setMtu(67); });
  expectRefusal("invalidArgument vsock.cid", [](auto config) { config.initVsock().setCid(2); });
  expectRefusal("invalidArgument vsock.cid", [](auto config) { config.initVsock().setCid(0xffffffff); });
  expectRefusal("invalidArgument balloon.targetSize",
                [](auto config) { config.initBalloon().setTargetSize(config.getMemory().getSize() + 1); });
}

TEST(Check, memoryAndProcessors_haveTheirBounds) {
  expectRefusal("invalidArgument boot.kernel", [](auto config) { config.initBoot(); });
  expectRefusal("invalidArgument boot.cmdline",
                [](auto config) { config.getBoot().setCmdline(std::string(2048, 'x')); });
  expectRefusal("invalidArgument boot.cmdline", [](auto config) { config.getBoot().setCmdline("a\nb"); });
  expectRefusal("invalidArgument cpus.count", [](auto config) { config.initCpus().setCount(0); });
  expectRefusal("invalidArgument cpus.count", [](auto config) { config.initCpus().setCount(65); });
  expectRefusal("unsupported cpus.max", [](auto config) { config.initCpus().setMax(2); });
  expectRefusal("unsupported cpus.threadsPerCore", [](auto config) { config.initCpus().setThreadsPerCore(2); });
  expectRefusal("unsupported cpus.coresPerSocket", [](auto config) { config.initCpus().setCoresPerSocket(2); });
  expectRefusal("invalidArgument memory.size", [](auto config) { config.initMemory().setSize(1 << 20); });
  expectRefusal("invalidArgument memory.size", [](auto config) { config.initMemory().setSize((64 << 20) + 1); });
  expectRefusal("invalidArgument memory.size", [](auto config) { config.initMemory().setSize(UINT64_MAX); });
  expectRefusal("unsupported memory.maxSize",
                [](auto config) { config.initMemory().setMaxSize(std::uint64_t{1} << 40); });
  expectRefusal("unsupported memory.hugePages", [](auto config) { config.initMemory().setHugePages(true); });
}

TEST(Check, platform_hasOneOption) {
  const auto option = [](const char* name, const char* value) {
    return [=](schema::VmConfig::Builder config) {
      auto entry = config.initPlatform().initOptions(1)[0];
      entry.setName(name);
      entry.setValue(value);
    };
  };
  EXPECT_EQ(answer(option("irqchip", "full")), "accepted");
  expectRefusal("invalidArgument platform.options[0]", option("irqchip", "none"));
  expectRefusal("unsupported platform.options[0]", option("turbo", "on"));
  expectRefusal("unsupported platform.machine", [](auto config) { config.initPlatform().setMachine("q35"); });
  expectRefusal("invalidArgument platform.uuid", [](auto config) { config.initPlatform().setUuid("1"); });
  expectRefusal("unsupported platform.nestedVirtualization",
                [](auto config) { config.initPlatform().setNestedVirtualization(true); });
}

}  // namespace
}  // namespace vmmhost::kvm::config
