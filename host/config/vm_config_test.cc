#include "host/config/vm_config.h"

#include <capnp/message.h>
#include <gtest/gtest.h>

#include <string>

#include "host/config/json.h"
#include "vmmhost/error.h"

namespace vmmhost::config {
namespace {

// The message of the refusal of this configuration; empty if it is good.
std::string refusal(std::string_view json) {
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<schema::VmConfig>();
  parseJson("vm.json", json, config);
  try {
    validateVmConfig(config.asReader());
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(error.field(), "");
    EXPECT_TRUE(error.message().starts_with(error.field() + ": ")) << error.field() << " of " << error.message();
    return error.message();
  }
  return {};
}

// A configuration that is good but for `members`.
std::string with(const std::string& members) {
  return refusal(R"({"boot":{"kernel":"k"},)" + members + "}");
}

TEST(VmConfig, goodOnes_areTaken) {
  EXPECT_EQ(refusal(R"({"boot":{"kernel":"k"}})"), "");
  EXPECT_EQ(refusal(R"({"boot":{"firmware":"f"}})"), "");
  EXPECT_EQ(refusal(R"({"name":"a.b-c_1","boot":{"kernel":"k","initrd":"i","cmdline":"x"},
    "cpus":{"count":4,"max":8,"threadsPerCore":2,"coresPerSocket":2},"memory":{"size":"1M","maxSize":"1T"},
    "disks":[{"file":"a","id":"root","serial":"12345678901234567890"},{"file":"b"}],
    "nics":[{"mac":"52:54:00:aB:cD:ef","mtu":1500,"attachment":{"network":"lan"}},{"attachment":{"tap":"tap0"}}],
    "consoles":[{},{"kind":"virtio"}],"vsock":{"cid":3},"shares":[{"tag":"t","directory":"/d"}],
    "balloon":{"targetSize":"1M"},"watchdog":{"action":"pause"},
    "platform":{"machine":"q35","uuid":"0f8fad5b-D9CB-469f-a165-70867728950e","options":[{"name":"a"}]}})"),
            "");
}

TEST(VmConfig, names_areWhatFileNamesMayBe) {
  for (const char* good : {"a", "A9_.-", "0"}) {
    EXPECT_NO_THROW(validateVmName(good)) << good;
  }
  EXPECT_NO_THROW(validateVmName(std::string(64, 'a')));
  const std::string tooLong(65, 'a');
  for (const char* bad : {"", ".", "..", ".a", "-a", "a/b", "a b", "\xc3\xa9", "a\n", tooLong.c_str()}) {
    EXPECT_THROW(validateVmName(bad), Error) << bad;
  }
  EXPECT_THROW(validateVmName(std::string_view("a\0b", 3)), Error);
  try {
    validateVmName("x\x1b[2J" + std::string(1000, 'y'));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "name: \"x\\x1b[2J" + std::string(53, 'y') + "...\" is not a name for a VM");
  }
}

TEST(VmConfig, boot_needsExactlyOneThingToBoot) {
  EXPECT_EQ(refusal("{}"), "boot: neither a kernel nor a firmware is given");
  EXPECT_EQ(refusal(R"({"boot":{"kernel":"","firmware":""}})"), "boot: neither a kernel nor a firmware is given");
  EXPECT_EQ(refusal(R"({"boot":{"kernel":"k","firmware":"f"}})"),
            "boot: a kernel and a firmware are given; expected one of them");
  EXPECT_EQ(refusal(R"({"boot":{"firmware":"f","initrd":"i"}})"),
            "boot.initrd: only a kernel takes an initrd, and a firmware is given");
  EXPECT_EQ(refusal(R"({"boot":{"firmware":"f","cmdline":"i"}})"),
            "boot.cmdline: only a kernel takes a command line, and a firmware is given");
}

TEST(VmConfig, cmdline_isBoundedAndPrintable) {
  EXPECT_EQ(refusal(R"({"boot":{"kernel":"k","cmdline":")" + std::string(2047, 'x') + "\"}}"), "");
  EXPECT_EQ(refusal(R"({"boot":{"kernel":"k","cmdline":")" + std::string(2048, 'x') + "\"}}"),
            "boot.cmdline: has 2048 bytes, expected at most 2047");
  EXPECT_EQ(refusal(R"({"boot":{"kernel":"k","cmdline":"a\nb"}})"),
            "boot.cmdline: \"a\\nb\" has a control character in it");
}

TEST(VmConfig, cpus_areInRangeAndDivide) {
  EXPECT_EQ(with(R"("cpus":{"count":254})"), "");
  EXPECT_EQ(with(R"("cpus":{"count":0})"), "cpus.count: 0 is out of range; expected 1 to 254");
  EXPECT_EQ(with(R"("cpus":{"count":255})"), "cpus.count: 255 is out of range; expected 1 to 254");
  EXPECT_EQ(with(R"("cpus":{"count":4,"max":3})"), "cpus.max: 3 is out of range; expected 4 to 254");
  EXPECT_EQ(with(R"("cpus":{"count":4,"threadsPerCore":0})"),
            "cpus.threadsPerCore: 0 is out of range; expected 1 to 4");
  EXPECT_EQ(with(R"("cpus":{"count":3,"threadsPerCore":2})"), "cpus.threadsPerCore: 2 does not divide 3 virtual CPUs");
  EXPECT_EQ(with(R"("cpus":{"count":4,"coresPerSocket":3})"), "cpus.coresPerSocket: 3 does not divide 4 cores");
}

TEST(VmConfig, memory_isInRangeAndWholePages) {
  EXPECT_EQ(with(R"("memory":{"size":"1T"})"), "");
  EXPECT_EQ(with(R"("memory":{"size":1048575})"),
            "memory.size: 1048575 is out of range; expected 1048576 to 1099511627776");
  EXPECT_EQ(with(R"("memory":{"size":"2T"})"),
            "memory.size: 2199023255552 is out of range; expected 1048576 to 1099511627776");
  EXPECT_EQ(with(R"("memory":{"size":1048577})"), "memory.size: 1048577 bytes is not a multiple of 4 KiB");
  EXPECT_EQ(with(R"("memory":{"size":"2M","maxSize":"1M"})"),
            "memory.maxSize: 1048576 is out of range; expected 2097152 to 1099511627776");
}

TEST(VmConfig, forgottenUnit_isHintedAt) {
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<schema::VmConfig>();
  config.initBoot().initKernel().setPath("k");
  config.initMemory().setSize(512);
  try {
    validateVmConfig(config.asReader());
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(error.hint().find("512M"), std::string::npos) << error.hint();
  }
}

TEST(VmConfig, disks_haveFilesAndIdsOfTheirOwn) {
  EXPECT_EQ(with(R"("disks":[{"file":"a"},{}])"), "disks[1].file: a file is missing");
  EXPECT_EQ(with(R"("disks":[{"file":"a","id":"x"},{"file":"b","id":"x"}])"), "disks[1].id: \"x\" is there twice");
  EXPECT_EQ(with(R"("disks":[{"file":"a","id":"disk1"},{"file":"b"}])"), "disks[1].id: \"disk1\" is there twice");
  EXPECT_EQ(with(R"("disks":[{"file":"a","id":"/"}])"), "disks[0].id: \"/\" is not an id");
  EXPECT_EQ(with(R"("disks":[{"file":"a","serial":"123456789012345678901"}])"),
            "disks[0].serial: has 21 bytes, expected at most 20");
  EXPECT_EQ(with(R"("disks":[{"file":")" + std::string(4096, 'a') + "\"}]"),
            "disks[0].file: has 4096 bytes, expected at most 4095");
  std::string many = R"("disks":[{"file":"a"})";
  for (int count = 1; count < 65; ++count) {
    many += R"(,{"file":"a"})";
  }
  EXPECT_EQ(with(many + "]"), "disks: 65 are too many; expected at most 64");
}

TEST(VmConfig, nics_haveWellFormedAddressesAndAttachments) {
  EXPECT_EQ(with(R"("nics":[{"mac":"52:54:00:12:34"}])"), "nics[0].mac: \"52:54:00:12:34\" is not a MAC address");
  EXPECT_EQ(with(R"("nics":[{"mac":"52-54-00-12-34-56"}])"), "nics[0].mac: \"52-54-00-12-34-56\" is not a MAC address");
  EXPECT_EQ(with(R"("nics":[{"mac":"52:54:00:12:34:5g"}])"), "nics[0].mac: \"52:54:00:12:34:5g\" is not a MAC address");
  EXPECT_EQ(with(R"("nics":[{"mac":"01:00:00:00:00:01"}])"),
            "nics[0].mac: \"01:00:00:00:00:01\" is a group address; a network card needs an address of its own");
  EXPECT_EQ(with(R"("nics":[{"mac":"00:00:00:00:00:00"}])"),
            "nics[0].mac: \"00:00:00:00:00:00\" is no address of a network card");
  EXPECT_EQ(with(R"("nics":[{"mtu":67}])"), "nics[0].mtu: 67 is out of range; expected 68 to 65535");
  EXPECT_EQ(with(R"("nics":[{"attachment":{"network":""}}])"), "nics[0].attachment.network: \"\" is not a name");
  EXPECT_EQ(with(R"("nics":[{"attachment":{"tap":"a/b"}}])"),
            "nics[0].attachment.tap: \"a/b\" is not the name of a network device");
  EXPECT_EQ(with(R"("nics":[{"attachment":{"tap":"1234567890123456"}}])"),
            "nics[0].attachment.tap: has 16 bytes, expected at most 15");
}

TEST(VmConfig, theRest_isChecked) {
  EXPECT_EQ(with(R"("vsock":{"cid":2})"), "vsock.cid: 2 is out of range; expected 3 to 4294967294");
  EXPECT_EQ(with(R"("vsock":{"cid":4294967295})"), "vsock.cid: 4294967295 is out of range; expected 3 to 4294967294");
  EXPECT_EQ(with(R"("shares":[{"directory":"/d"}])"), "shares[0].tag: is missing");
  EXPECT_EQ(with(R"("shares":[{"tag":"a"}])"), "shares[0].directory: a file is missing");
  EXPECT_EQ(with(R"("shares":[{"tag":"a","directory":"/d"},{"tag":"a","directory":"/e"}])"),
            "shares[1].tag: \"a\" is there twice");
  EXPECT_EQ(with(R"("memory":{"size":"1M"},"balloon":{"targetSize":"2M"})"),
            "balloon.targetSize: 2097152 bytes is more than memory.size, 1048576");
  EXPECT_EQ(with(R"("platform":{"uuid":"0f8fad5b"})"), "platform.uuid: \"0f8fad5b\" is not a UUID");
  EXPECT_EQ(with(R"("platform":{"machine":"a b"})"), "platform.machine: \"a b\" is not a name");
  EXPECT_EQ(with(R"("platform":{"options":[{"name":"a"},{"name":"a"}]})"),
            "platform.options[1].name: \"a\" is there twice");
  EXPECT_EQ(with(R"("consoles":[{},{},{},{},{},{},{},{},{}])"), "consoles: 9 are too many; expected at most 8");
}

// JSON cannot say it, but a client of the control protocol could.
TEST(VmConfig, numbersOfOpenedFiles_areTheHostsToGive) {
  const auto refusalOf = [](auto fill) -> std::string {
    capnp::MallocMessageBuilder message;
    auto config = message.initRoot<schema::VmConfig>();
    config.initBoot().initKernel().setPath("k");
    fill(config);
    try {
      validateVmConfig(config.asReader());
    } catch (const Error& error) {
      return error.message();
    }
    return "accepted";
  };
  const std::string why = ".resource: only the host numbers files, when it has opened them";
  EXPECT_EQ(refusalOf([](auto) {}), "accepted");
  EXPECT_EQ(refusalOf([](auto config) { config.getBoot().getKernel().setResource(1); }), "boot.kernel" + why);
  EXPECT_EQ(refusalOf([](auto config) { config.getBoot().initInitrd().setResource(1); }), "boot.initrd" + why);
  EXPECT_EQ(refusalOf([](auto config) { config.initDisks(1)[0].initFile().setResource(2); }), "disks[0].file" + why);
}

}  // namespace
}  // namespace vmmhost::config
