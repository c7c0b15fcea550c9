#include "worker/command_line.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "worker/json_text.h"

namespace qemubackend {
namespace {

// The values that follow an option, in order.
std::vector<std::string> valuesOf(const std::vector<std::string>& arguments, const std::string& option) {
  std::vector<std::string> values;
  for (std::size_t i = 0; i + 1 < arguments.size(); ++i) {
    if (arguments[i] == option) {
      values.push_back(arguments[i + 1]);
    }
  }
  return values;
}

struct Machine {
  Machine() {
    spec.memoryBytes = 512 << 20;
    descriptors.qmp = 3;
    descriptors.consoles = {4};
    descriptors.kernelPath = "/proc/self/fd/5";
  }
  std::vector<std::string> arguments() const { return qemuArguments(spec, descriptors); }
  std::string only(const std::string& option) const {
    const auto values = valuesOf(arguments(), option);
    return values.size() == 1 ? values[0] : std::to_string(values.size()) + " values";
  }
  MachineSpec spec;
  ChildDescriptors descriptors;
};

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(CommandLineTest, nothingComesFromQemusDefaults) {
  const auto arguments = Machine().arguments();
  for (const char* option : {"-nodefaults", "-no-user-config", "-S", "-no-reboot"}) {
    EXPECT_EQ(std::count(arguments.begin(), arguments.end(), option), 1) << option;
  }
}

TEST(CommandLineTest, translationUsesOneThreadAVirtualCpu) {
  Machine machine;
  EXPECT_TRUE(has(machine.only("-accel"), "tcg,thread=single"));
  machine.spec.cpus = 4;
  machine.spec.threadsPerCore = 2;
  machine.spec.coresPerSocket = 1;
  EXPECT_TRUE(has(machine.only("-accel"), "tcg,thread=multi"));
  EXPECT_EQ(machine.only("-smp"), "cpus=4,sockets=2,cores=1,threads=2");
  EXPECT_TRUE(has(machine.only("-cpu"), "vendor=GenuineIntel")) << "as that tells of threads";
}

TEST(CommandLineTest, kvmIsTakenByDescriptor) {
  Machine machine;
  machine.spec.kvm = true;
  machine.descriptors.kvm = 9;
  EXPECT_EQ(machine.only("-accel"), "kvm,device=/dev/fdset/1");
  EXPECT_EQ(valuesOf(machine.arguments(), "-add-fd").front(), "fd=9,set=1");
  EXPECT_TRUE(has(machine.only("-cpu"), "host"));
}

TEST(CommandLineTest, streamsAreReadAndWritten_notSentTo) {
  Machine machine;
  const auto devices = valuesOf(machine.arguments(), "-chardev");
  EXPECT_EQ(devices,
            (std::vector<std::string>{"pipe,id=qmp,path=/dev/fdset/1000", "pipe,id=console0,path=/dev/fdset/1001"}));
}

TEST(CommandLineTest, nestedVirtualizationIsOffUnlessAskedFor) {
  Machine machine;
  EXPECT_TRUE(has(machine.only("-cpu"), "svm=off"));
  machine.spec.nestedVirtualization = true;
  EXPECT_FALSE(has(machine.only("-cpu"), "svm=off"));
}

TEST(CommandLineTest, commandLineOfTheKernelIsOneArgumentWhateverItHolds) {
  Machine machine;
  machine.spec.cmdline = "a,b=\"c d\" -kernel /etc/passwd";
  EXPECT_EQ(machine.only("-append"), machine.spec.cmdline);
  EXPECT_EQ(machine.only("-kernel"), "/proc/self/fd/5");
}

TEST(CommandLineTest, disksHaveTheFormatThatWasSaidAndNoOtherFile) {
  Machine machine;
  machine.spec.disks.resize(2);
  machine.spec.disks[0].readOnly = true;
  machine.spec.disks[0].cache = DiskSpec::Cache::kDirect;
  machine.spec.disks[1].format = DiskSpec::Format::kQcow2;
  machine.spec.disks[1].cache = DiskSpec::Cache::kUnsafe;
  machine.spec.disks[1].serial = "disk.one";
  machine.descriptors.disks = {10, 11};
  const auto arguments = machine.arguments();
  EXPECT_EQ(valuesOf(arguments, "-add-fd"),
            (std::vector<std::string>{"fd=3,set=1000", "fd=10,set=1", "fd=11,set=2", "fd=4,set=1001"}));
  const auto nodes = valuesOf(arguments, "-blockdev");
  ASSERT_EQ(nodes.size(), 4u);
  EXPECT_TRUE(has(nodes[0], "\"/dev/fdset/1\"") && has(nodes[0], "\"read-only\":true"));
  EXPECT_TRUE(has(nodes[0], "\"direct\":true") && has(nodes[0], "\"no-flush\":false"));
  EXPECT_TRUE(has(nodes[0], "\"locking\":\"off\"") && has(nodes[0], "\"aio\":\"threads\""));
  EXPECT_TRUE(has(nodes[1], "\"driver\":\"raw\"") && has(nodes[1], "\"read-only\":true"));
  EXPECT_TRUE(has(nodes[2], "\"read-only\":false") && has(nodes[2], "\"no-flush\":true"));
  EXPECT_TRUE(has(nodes[3], "\"driver\":\"qcow2\"") && has(nodes[3], "\"backing\":null"));
  EXPECT_TRUE(has(valuesOf(arguments, "-device")[1], "\"serial\":\"disk.one\""));
}

TEST(CommandLineTest, rawDisksGiveBackWhatIsDiscarded_imagesDoNot) {
  Machine machine;
  machine.spec.disks.resize(2);
  machine.spec.disks[1].format = DiskSpec::Format::kQcow2;
  machine.descriptors.disks = {10, 11};
  const auto nodes = valuesOf(machine.arguments(), "-blockdev");
  ASSERT_EQ(nodes.size(), 4u);
  EXPECT_TRUE(has(nodes[0], "\"discard\":\"unmap\"") && has(nodes[1], "\"discard\":\"unmap\""));
  EXPECT_TRUE(has(nodes[3], "\"discard\":\"ignore\""));
}

TEST(CommandLineTest, errorsOfADiskAreTheGuests_andNeverStopTheMachine) {
  Machine machine;
  machine.spec.disks.resize(1);
  machine.descriptors.disks = {10};
  const std::string device = valuesOf(machine.arguments(), "-device").at(0);
  EXPECT_TRUE(has(device, "\"werror\":\"report\"") && has(device, "\"rerror\":\"report\"")) << device;
}

TEST(CommandLineTest, nicsAreTapDevicesByDescriptor_orAttachedToNothing) {
  Machine machine;
  machine.spec.nics.resize(2);
  machine.spec.nics[0].mac = "52:54:00:00:00:01";
  machine.spec.nics[0].mtu = 1400;
  machine.descriptors.nics = {7, -1};
  EXPECT_EQ(machine.only("-netdev"), "tap,id=nic0-tap,fd=7,vhost=off");
  const auto devices = valuesOf(machine.arguments(), "-device");
  EXPECT_EQ(devices.at(0), R"({"driver":"virtio-net-pci","romfile":"","id":"nic0","netdev":"nic0-tap",)"
                           R"("mac":"52:54:00:00:00:01","host_mtu":1400})");
  EXPECT_EQ(devices.at(1), R"({"driver":"virtio-net-pci","romfile":"","id":"nic1"})");
  const auto commands = firstCommands(machine.spec, machine.descriptors);
  ASSERT_EQ(commands.size(), 1u);
  EXPECT_EQ(commands[0].name, "set_link");
  EXPECT_EQ(commands[0].arguments, R"({"name":"nic1","up":false})");
}

TEST(CommandLineTest, consolesOfVirtioArePortsOfOneDevice) {
  Machine machine;
  machine.spec.consoles = {ConsoleKind::kVirtio, ConsoleKind::kSerial, ConsoleKind::kVirtio};
  machine.descriptors.consoles = {4, 5, 6};
  EXPECT_EQ(machine.only("-serial"), "chardev:console1");
  const auto arguments = machine.arguments();
  EXPECT_EQ(valuesOf(arguments, "-add-fd"),
            (std::vector<std::string>{"fd=3,set=1000", "fd=4,set=1001", "fd=5,set=1002", "fd=6,set=1003"}));
  EXPECT_EQ(valuesOf(arguments, "-chardev").at(3), "pipe,id=console2,path=/dev/fdset/1003");
  const auto devices = valuesOf(arguments, "-device");
  EXPECT_EQ(devices.at(0), R"({"driver":"virtio-serial-pci","id":"consoles","max_ports":2})");
  EXPECT_EQ(devices.at(1), R"({"driver":"virtconsole","bus":"consoles.0","nr":0,"chardev":"console0"})");
  EXPECT_EQ(devices.at(2), R"({"driver":"virtconsole","bus":"consoles.0","nr":1,"chardev":"console2"})");
}

TEST(CommandLineTest, balloonHasItsTargetFromTheStart) {
  Machine machine;
  machine.spec.balloon = BalloonSpec{.targetBytes = 16 << 20, .deflateOnOom = false, .freePageReporting = true};
  EXPECT_EQ(valuesOf(machine.arguments(), "-device").front(),
            R"({"driver":"virtio-balloon-pci","deflate-on-oom":false,"free-page-reporting":true})");
  const auto commands = firstCommands(machine.spec, machine.descriptors);
  ASSERT_EQ(commands.size(), 1u);
  EXPECT_EQ(commands[0].name, "balloon");
  EXPECT_EQ(commands[0].arguments, R"({"value":520093696})");
  machine.spec.memoryBytes += 4096;  // QEMU makes it two pages more
  EXPECT_EQ(firstCommands(machine.spec, machine.descriptors)[0].arguments, R"({"value":520101888})");
  machine.spec.balloon->targetBytes = 0;
  EXPECT_TRUE(firstCommands(machine.spec, machine.descriptors).empty());
}

TEST(CommandLineTest, balloonOfAllMemory_leavesAByteSinceQemuTakesNoZero) {
  EXPECT_EQ(balloonCommand(8192, 8192).arguments, R"({"value":1})");
  EXPECT_EQ(balloonCommand(8192, 0).arguments, R"({"value":8192})");
}

TEST(CommandLineTest, watchdogOnlyStopsTheMachine) {
  Machine machine;
  EXPECT_TRUE(valuesOf(machine.arguments(), "-action").empty());
  machine.spec.watchdog = WatchdogAction::kReset;
  EXPECT_EQ(machine.only("-action"), "watchdog=pause");
  EXPECT_EQ(valuesOf(machine.arguments(), "-device").back(), R"({"driver":"i6300esb"})");
}

TEST(JsonTextTest, everythingThatEndsALiteralIsEscaped) {
  EXPECT_EQ(jsonString("a\"b\\c\n\x1f"), "\"a\\\"b\\\\c\\u000a\\u001f\"");
  EXPECT_EQ(jsonString("\xc3\xa9"), "\"\xc3\xa9\"");
}

}  // namespace
}  // namespace qemubackend
