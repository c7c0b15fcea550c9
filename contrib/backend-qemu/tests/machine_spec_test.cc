#include "config/machine_spec.h"

#include <capnp/message.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "vmmhost/config_fields.h"

namespace qemubackend {
namespace {

using vmmhost::Error;
using vmmhost::ErrorCode;
using vmmhost::schema::VmConfig;
using vmmhost::schema::Watchdog;

MachineSpec specOf(const std::function<void(VmConfig::Builder)>& change) {
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<VmConfig>();
  config.initBoot().initKernel().setPath("/kernel");
  change(config);
  return readConfig(config.asReader());
}

// "code field", or "accepted".
std::string refusal(const std::function<void(VmConfig::Builder)>& change) {
  try {
    specOf(change);
  } catch (const Error& error) {
    const std::string code = error.code() == ErrorCode::kUnsupported       ? "unsupported "
                             : error.code() == ErrorCode::kInvalidArgument ? "invalid "
                                                                           : "other ";
    return code + error.message().substr(0, error.message().find(':'));
  }
  return "accepted";
}

TEST(MachineSpecTest, leastConfiguration_isAccepted) {
  const MachineSpec spec = specOf([](VmConfig::Builder) {});
  EXPECT_EQ(spec.cpus, 1u);
  EXPECT_EQ(spec.memoryBytes, std::uint64_t{512} << 20);
  EXPECT_EQ(spec.consoles, std::vector{ConsoleKind::kSerial});
  EXPECT_TRUE(spec.nics.empty());
  EXPECT_FALSE(spec.balloon || spec.watchdog);
  EXPECT_FALSE(spec.hasInitrd);
  EXPECT_FALSE(spec.rng);
}

TEST(MachineSpecTest, everyFieldThatIsNotServed_isNamed) {
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.initNics(9); }), "unsupported nics");
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.initVsock(); }), "unsupported vsock");
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.initShares(1); }), "unsupported shares");
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.initWatchdog().setAction(Watchdog::Action::PAUSE); }),
            "unsupported watchdog.action");
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.getBoot().initFirmware().setPath("/f"); }),
            "unsupported boot.firmware");
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.initBoot().initFirmware().setPath("/f"); }),
            "unsupported boot.firmware");
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.initCpus().setMax(4); }), "unsupported cpus.max");
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.initMemory().setMaxSize(std::uint64_t{1} << 30); }),
            "unsupported memory.maxSize");
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.initMemory().setShared(true); }), "unsupported memory.shared");
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.initMemory().setHugePages(true); }), "unsupported memory.hugePages");
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.initConsoles(5); }), "unsupported consoles[4].kind");
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.initConsoles(17); }), "unsupported consoles");
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.initPlatform().setMachine("microvm"); }),
            "unsupported platform.machine");
  EXPECT_EQ(refusal([](VmConfig::Builder c) {
              auto option = c.initPlatform().initOptions(1)[0];
              option.setName("-monitor");
              option.setValue("stdio");
            }),
            "unsupported platform.options");
}

// A field that is added to vm.capnp is in neither list until somebody has thought of it.
TEST(MachineSpecTest, everyField_isServedOrRefusedByName) {
  using Config = VmConfig::Builder;
  vmmhost::ServedFields served;
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
      "cpus.threadsPerCore",
      "cpus.coresPerSocket",
      "memory",
      "memory.size",
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
      "disks.format",
      "disks.format.qcow2",
      "nics",
      "nics.id",
      "nics.mac",
      "nics.mtu",
      "nics.attachment.tap",
      "consoles",
      "consoles.kind",
      "consoles.kind.virtio",
      "vsock.enabled",  // that is: not there
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
      "platform.machine",
      "platform.nestedVirtualization",
      "platform.uuid",
      "platform.options",
      "platform.options.name",
      "platform.options.value",
  };
  const auto option = [](Config config) {
    auto entry = config.initPlatform().initOptions(1)[0];
    entry.setName("accel");
    entry.setValue("kvm");
  };
  served.values = {
      {"cpus.max", [](Config config) { config.initCpus().setMax(2); }},
      {"cpus.threadsPerCore",
       [](Config config) {
         config.initCpus().setCount(2);
         config.getCpus().setThreadsPerCore(2);
       }},
      {"cpus.coresPerSocket",
       [](Config config) {
         config.initCpus().setCount(4);
         config.getCpus().setCoresPerSocket(2);
       }},
      {"memory.size", [](Config config) { config.initMemory().setSize(64 << 20); }},
      {"nics.mac", [](Config config) { config.initNics(1)[0].setMac("52:54:00:00:00:01"); }},
      {"nics.mtu", [](Config config) { config.initNics(1)[0].setMtu(1500); }},
      {"platform.machine", [](Config config) { config.initPlatform().setMachine("q35"); }},
      {"platform.uuid", [](Config config) { config.initPlatform().setUuid("01234567-89AB-cdef-0123-456789abcdef"); }},
      {"platform.options", option},
      {"platform.options.name", option},
      {"platform.options.value", option},
  };
  const auto prepare = [](Config config) {
    config.initBoot().initKernel().setPath("/kernel");
    config.initDisks(1)[0].initFile().setPath("/disk");
  };
  EXPECT_EQ(vmmhost::findUnaccountedFields(served, prepare, readConfig), std::vector<std::string>{});
}

TEST(MachineSpecTest, whatNoBackendCould_isInvalid) {
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.initBoot(); }), "invalid boot.kernel");
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.getBoot().setCmdline("a\nb"); }), "invalid boot.cmdline");
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.getBoot().setCmdline(std::string(2048, 'x')); }),
            "invalid boot.cmdline");
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.initCpus().setCount(0); }), "invalid cpus.count");
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.initCpus().setCount(65); }), "invalid cpus.count");
  EXPECT_EQ(refusal([](VmConfig::Builder c) {
              c.initCpus().setCount(4);
              c.getCpus().setThreadsPerCore(3);
            }),
            "invalid cpus.threadsPerCore");
  EXPECT_EQ(refusal([](VmConfig::Builder c) {
              c.initCpus().setCount(4);
              c.getCpus().setCoresPerSocket(3);
            }),
            "invalid cpus.coresPerSocket");
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.initMemory().setSize(4097); }), "invalid memory.size");
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.initMemory().setSize(~std::uint64_t{0}); }), "invalid memory.size");
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.initDisks(1); }), "invalid disks[0].file");
  EXPECT_EQ(refusal([](VmConfig::Builder c) {
              auto disk = c.initDisks(1)[0];
              disk.initFile().setPath("/d");
              disk.setSerial("a,readonly=on");
            }),
            "invalid disks[0].serial");
  for (const char* mac :
       {"52:54:00:12:34", "52-54-00-12-34-56", "53:54:00:12:34:56", "52:54:00:12:34:5g", "52:54:00:12:34:56,x=y"}) {
    EXPECT_EQ(refusal([mac](VmConfig::Builder c) { c.initNics(1)[0].setMac(mac); }), "invalid nics[0].mac") << mac;
  }
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.initNics(2)[1].setMtu(67); }), "invalid nics[1].mtu");
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.initBalloon().setTargetSize((std::uint64_t{512} << 20) + 1); }),
            "invalid balloon.targetSize");
  EXPECT_EQ(refusal([](VmConfig::Builder c) { c.initPlatform().setUuid("x"); }), "invalid platform.uuid");
  EXPECT_EQ(refusal([](VmConfig::Builder c) {
              auto option = c.initPlatform().initOptions(1)[0];
              option.setName("accel");
              option.setValue("hvf");
            }),
            "invalid platform.options.accel");
}

TEST(MachineSpecTest, threadsOfACore_areAPowerOf2) {
  for (std::uint32_t threads = 1; threads <= 16; ++threads) {
    const bool isTaken = threads == 1 || threads == 2 || threads == 4 || threads == 8 || threads == 16;
    EXPECT_EQ(refusal([threads](VmConfig::Builder c) {
                c.initCpus().setCount(2 * threads);
                c.getCpus().setThreadsPerCore(threads);
              }),
              isTaken ? "accepted" : "unsupported cpus.threadsPerCore")
        << threads;
  }
}

TEST(MachineSpecTest, coresOfOneOfSeveralSockets_areAPowerOf2_whereQemuTranslates) {
  const auto told = [](std::uint32_t cpus, std::uint32_t cores, const char* accel) {
    return refusal([=](VmConfig::Builder c) {
      c.initCpus().setCount(cpus);
      c.getCpus().setCoresPerSocket(cores);
      auto option = c.initPlatform().initOptions(1)[0];
      option.setName("accel");
      option.setValue(accel);
    });
  };
  EXPECT_EQ(told(6, 3, "tcg"), "unsupported cpus.coresPerSocket");
  EXPECT_EQ(told(6, 3, "kvm"), "accepted");
  EXPECT_EQ(told(3, 3, "tcg"), "accepted");
  EXPECT_EQ(told(8, 4, "tcg"), "accepted");
}

TEST(MachineSpecTest, whatIsServed_isTaken) {
  const MachineSpec spec = specOf([](VmConfig::Builder c) {
    c.getBoot().initInitrd().setResource(2);
    c.getBoot().getKernel().setResource(1);
    c.initCpus().setCount(4);
    c.getCpus().setThreadsPerCore(2);
    c.initRng();
    auto platform = c.initPlatform();
    platform.setMachine("q35");
    platform.setUuid("01234567-89AB-cdef-0123-456789abcdef");
    auto option = platform.initOptions(1)[0];
    option.setName("accel");
    option.setValue("kvm");
    auto disk = c.initDisks(1)[0];
    disk.initFile().setResource(3);
    disk.setFormat(vmmhost::schema::Disk::Format::QCOW2);
    disk.setReadOnly(true);
  });
  EXPECT_TRUE(spec.hasInitrd && spec.rng && spec.kvm);
  EXPECT_EQ(spec.coresPerSocket, 2u);
  ASSERT_EQ(spec.disks.size(), 1u);
  EXPECT_EQ(spec.disks[0].resource, 3u);
  EXPECT_TRUE(spec.disks[0].readOnly);
  EXPECT_EQ(spec.disks[0].format, DiskSpec::Format::kQcow2);
}

TEST(MachineSpecTest, furtherDevices_areTaken) {
  const MachineSpec spec = specOf([](VmConfig::Builder c) {
    auto nics = c.initNics(2);
    nics[0].setMac("52:54:00:aB:Cd:eF");
    nics[0].setMtu(9000);
    auto consoles = c.initConsoles(16);
    for (unsigned index = 0; index < 12; ++index) {
      consoles[index].setKind(vmmhost::schema::Console::Kind::VIRTIO);
    }
    auto balloon = c.initBalloon();
    balloon.setTargetSize(std::uint64_t{512} << 20);
    balloon.setFreePageReporting(true);
    c.initWatchdog().setAction(Watchdog::Action::POWER_OFF);
  });
  ASSERT_EQ(spec.nics.size(), 2u);
  EXPECT_EQ(spec.nics[0].mac, "52:54:00:aB:Cd:eF");
  EXPECT_EQ(spec.nics[0].mtu, 9000);
  EXPECT_EQ(spec.nics[1].mac, "");
  ASSERT_EQ(spec.consoles.size(), 16u);
  EXPECT_EQ(spec.consoles[11], ConsoleKind::kVirtio);
  EXPECT_EQ(spec.consoles[12], ConsoleKind::kSerial);
  ASSERT_TRUE(spec.balloon);
  EXPECT_EQ(spec.balloon->targetBytes, std::uint64_t{512} << 20);
  EXPECT_TRUE(spec.balloon->deflateOnOom && spec.balloon->freePageReporting);
  EXPECT_EQ(spec.watchdog, WatchdogAction::kPowerOff);
}

}  // namespace
}  // namespace qemubackend
