#include "worker/command_line.h"

#include <algorithm>

#include "worker/json_text.h"

namespace qemubackend {

namespace {

// Translated code is kept in a buffer of this size: enough for a Linux boot without throwing any away (measured: 32 is
// as fast), while QEMU's default grows to a gigabyte.
constexpr int kTranslationBufferMiB = 64;

// Disk requests run on threads (io_uring is not for a confined process); 64 is QEMU's default and more than the jail
// grants.
constexpr int kMaxDiskThreads = 8;

// Descriptor sets of character devices; those of disks and /dev/kvm count from 1.
constexpr int kFirstStreamSet = 1000;

constexpr const char* kSandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

std::string flag(bool value) {
  return value ? "true" : "false";
}

void addDisk(std::size_t index, const DiskSpec& disk, int descriptor, std::vector<std::string>& arguments) {
  const std::string node = kDiskNode + std::to_string(index);
  const std::string set = std::to_string(index + 1);
  arguments.insert(arguments.end(), {"-add-fd", "fd=" + std::to_string(descriptor) + ",set=" + set});

  const bool direct = disk.cache == DiskSpec::Cache::kDirect;
  const bool noFlush = disk.cache == DiskSpec::Cache::kUnsafe;
  const std::string cache = "\"cache\":{\"direct\":" + flag(direct) + ",\"no-flush\":" + flag(noFlush) + "}";
  const std::string common = ",\"read-only\":" + flag(disk.readOnly) + ",\"auto-read-only\":false," + cache;
  // Locks belong to the host: an unlock here would free the host's own.
  arguments.insert(
      arguments.end(),
      {"-blockdev", "{\"driver\":\"file\",\"node-name\":" + jsonString(node + "-file") + ",\"filename\":\"/dev/fdset/" +
                        set + "\",\"aio\":\"threads\",\"locking\":\"off\",\"discard\":\"unmap\"" + common + "}"});
  // The format is what the configuration says, and an image names no other file: never what its content asks for.
  const bool qcow2 = disk.format == DiskSpec::Format::kQcow2;
  // An image that gives clusters back comes to have holes of all sizes, and then grows beyond what its disk takes,
  // which the host's limit does not let it: the guest would get errors. So an image keeps what it has.
  const char* discard = qcow2 ? ",\"discard\":\"ignore\"" : ",\"discard\":\"unmap\"";
  arguments.insert(arguments.end(),
                   {"-blockdev", std::string("{\"driver\":") + (qcow2 ? "\"qcow2\"" : "\"raw\"") +
                                     ",\"node-name\":" + jsonString(node) + ",\"file\":" + jsonString(node + "-file") +
                                     (qcow2 ? ",\"backing\":null" : "") + discard + common + "}"});
  // An error is the guest's, as on a real disk. Left to itself QEMU stops the machine when the host's file system is
  // full.
  std::string device = "{\"driver\":\"virtio-blk-pci\",\"id\":" + jsonString(node + "-device") +
                       ",\"werror\":\"report\",\"rerror\":\"report\",\"drive\":" + jsonString(node);
  if (!disk.serial.empty()) {
    device += ",\"serial\":" + jsonString(disk.serial);
  }
  arguments.insert(arguments.end(), {"-device", device + "}"});
}

// The name by which commands know a network card.
std::string nicName(std::size_t index) {
  return "nic" + std::to_string(index);
}

void addNic(std::size_t index, const NicSpec& nic, int descriptor, std::vector<std::string>& arguments) {
  const std::string id = nicName(index);
  // Without an option ROM: qboot runs none.
  std::string device = R"({"driver":"virtio-net-pci","romfile":"","id":)" + jsonString(id);
  if (descriptor >= 0) {
    arguments.insert(arguments.end(),
                     {"-netdev", "tap,id=" + id + "-tap,fd=" + std::to_string(descriptor) + ",vhost=off"});
    device += ",\"netdev\":" + jsonString(id + "-tap");
  }
  if (!nic.mac.empty()) {
    device += ",\"mac\":" + jsonString(nic.mac);
  }
  if (nic.mtu != 0) {
    device += ",\"host_mtu\":" + std::to_string(nic.mtu);
  }
  arguments.insert(arguments.end(), {"-device", device + "}"});
}

// A stream over a socket that is there already. As a pipe, QEMU reads and writes it; as a socket, it would send with
// sendmsg, which the jail forbids: descriptors could go along.
std::string addStream(const std::string& id, int descriptor, int set, std::vector<std::string>& arguments) {
  arguments.insert(arguments.end(), {"-add-fd", "fd=" + std::to_string(descriptor) + ",set=" + std::to_string(set),
                                     "-chardev", "pipe,id=" + id + ",path=/dev/fdset/" + std::to_string(set)});
  return id;
}

// One device, whose ports are the consoles that are not serial ones.
void addConsoles(const MachineSpec& spec, const std::vector<int>& descriptors, int set,
                 std::vector<std::string>& arguments) {
  std::vector<std::string> ports;
  for (std::size_t index = 0; index < spec.consoles.size(); ++index) {
    const std::string stream = addStream("console" + std::to_string(index), descriptors.at(index), set++, arguments);
    if (spec.consoles[index] == ConsoleKind::kSerial) {
      arguments.insert(arguments.end(), {"-serial", "chardev:" + stream});
    } else {
      ports.push_back(stream);
    }
  }
  if (ports.empty()) {
    return;
  }
  arguments.insert(arguments.end(), {"-device", R"({"driver":"virtio-serial-pci","id":"consoles","max_ports":)" +
                                                    std::to_string(ports.size()) + "}"});
  for (std::size_t port = 0; port < ports.size(); ++port) {
    arguments.insert(arguments.end(),
                     {"-device", R"({"driver":"virtconsole","bus":"consoles.0","nr":)" + std::to_string(port) +
                                     ",\"chardev\":" + jsonString(ports[port]) + "}"});
  }
}

void addBalloon(const BalloonSpec& balloon, std::vector<std::string>& arguments) {
  arguments.insert(arguments.end(),
                   {"-device", R"({"driver":"virtio-balloon-pci","deflate-on-oom":)" + flag(balloon.deflateOnOom) +
                                   ",\"free-page-reporting\":" + flag(balloon.freePageReporting) + "}"});
}

std::string cpuModel(const MachineSpec& spec) {
  std::string model = spec.kvm ? "host" : "max";
  if (!spec.kvm) {
    // Five levels of page tables only cost time when translated. Without SVM, which goes further below, there would be
    // no leaf that tells how many cores a socket has.
    model += ",la57=off,min-xlevel=0x80000008";
  }
  if (spec.threadsPerCore > 1) {
    // Processors of AMD tell of threads with an extension that is off unless it is asked for, and that QEMU does not
    // translate; those of Intel always do.
    model += spec.kvm ? ",topoext=on" : ",vendor=GenuineIntel";
  }
  if (!spec.nestedVirtualization) {
    model += ",svm=off,vmx=off";
  }
  return model;
}

}  // namespace

std::vector<std::string> qemuArguments(const MachineSpec& spec, const ChildDescriptors& descriptors) {
  std::vector<std::string> arguments = {"-nodefaults", "-no-user-config", "-display", "none", "-S", "-no-reboot",
                                        // QEMU's own filter, inside the jail's: it starts nothing and becomes nobody.
                                        "-sandbox", kSandbox};
  const auto add = [&](std::string name, std::string value) {
    arguments.push_back(std::move(name));
    arguments.push_back(std::move(value));
  };

  // What a virtual machine needs none of is left out: it would only be there to be attacked, and cost boot time.
  // QEMU's usual firmware, SeaBIOS, is twice as slow to reach a kernel, and after a reset asks for another one, which
  // could not be told from a reset that the guest asks for. (graphics=off would have it talk on the serial console.)
  add("-bios", "qboot.rom");
  add("-machine", "q35,vmport=off,smm=off,usb=off,sata=off,smbus=off,memory-backend=ram");
  if (spec.kvm) {
    const std::string set = std::to_string(spec.disks.size() + 1);
    add("-add-fd", "fd=" + std::to_string(descriptors.kvm) + ",set=" + set);
    add("-accel", "kvm,device=/dev/fdset/" + set);
  } else {
    add("-accel", std::string("tcg,thread=") + (spec.cpus > 1 ? "multi" : "single") +
                      ",tb-size=" + std::to_string(kTranslationBufferMiB));
  }
  add("-cpu", cpuModel(spec));
  const std::uint32_t sockets = spec.cpus / spec.threadsPerCore / spec.coresPerSocket;
  add("-smp", "cpus=" + std::to_string(spec.cpus) + ",sockets=" + std::to_string(sockets) +
                  ",cores=" + std::to_string(spec.coresPerSocket) + ",threads=" + std::to_string(spec.threadsPerCore));
  const std::uint64_t unit = 8192;  // which QEMU rounds it up to by itself, and then wants the object to have as well
  const std::string memory = std::to_string((spec.memoryBytes + unit - 1) / unit * unit);
  add("-m", "size=" + memory + "B");
  // A guest may have more than there is, as long as it does not use it: limits are for that.
  add("-object", "memory-backend-ram,id=ram,reserve=off,size=" + memory + "B");
  if (!spec.uuid.empty()) {
    add("-uuid", spec.uuid);
  }
  add("-object", "main-loop,id=main,thread-pool-max=" + std::to_string(kMaxDiskThreads));

  add("-mon", "chardev=" + addStream("qmp", descriptors.qmp, kFirstStreamSet, arguments) + ",mode=control");

  add("-kernel", descriptors.kernelPath);
  if (!descriptors.initrdPath.empty()) {
    add("-initrd", descriptors.initrdPath);
  }
  if (!spec.cmdline.empty()) {
    add("-append", spec.cmdline);
  }

  for (std::size_t index = 0; index < spec.disks.size(); ++index) {
    addDisk(index, spec.disks[index], descriptors.disks.at(index), arguments);
  }
  for (std::size_t index = 0; index < spec.nics.size(); ++index) {
    addNic(index, spec.nics[index], descriptors.nics.at(index), arguments);
  }
  addConsoles(spec, descriptors.consoles, kFirstStreamSet + 1, arguments);
  if (spec.balloon) {
    addBalloon(*spec.balloon, arguments);
  }
  if (spec.rng) {
    add("-object", "rng-builtin,id=rng0");
    add("-device", R"({"driver":"virtio-rng-pci","rng":"rng0"})");
  }
  add("-device", R"({"driver":"pvpanic"})");
  if (spec.watchdog) {
    // It stops the virtual CPUs and says so; what becomes of the machine is decided in this process.
    add("-device", R"({"driver":"i6300esb"})");
    add("-action", "watchdog=pause");
  }
  return arguments;
}

std::uint64_t roundedMemory(std::uint64_t bytes) {
  constexpr std::uint64_t kGranule = 8192;
  return (bytes + kGranule - 1) / kGranule * kGranule;
}

std::vector<QmpCommand> firstCommands(const MachineSpec& spec, const ChildDescriptors& descriptors) {
  std::vector<QmpCommand> commands;
  for (std::size_t index = 0; index < spec.nics.size(); ++index) {
    if (descriptors.nics.at(index) < 0) {
      commands.push_back({"set_link", "{\"name\":" + jsonString(nicName(index)) + ",\"up\":false}"});
    }
  }
  if (spec.balloon && spec.balloon->targetBytes != 0) {
    commands.push_back(balloonCommand(roundedMemory(spec.memoryBytes), spec.balloon->targetBytes));
  }
  return commands;
}

QmpCommand balloonCommand(std::uint64_t memory, std::uint64_t target) {
  // QEMU is told what is to be left, and takes no 0: of a balloon as large as memory the last page stays out.
  const std::uint64_t left = std::max<std::uint64_t>(memory - target, 1);
  return {"balloon", "{\"value\":" + std::to_string(left) + "}"};
}

}  // namespace qemubackend
