#include "worker/command_line.h"

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
  const std::string node = "disk" + std::to_string(index);
  const std::string set = std::to_string(index + 1);
  arguments.insert(arguments.end(), {"-add-fd", "fd=" + std::to_string(descriptor) + ",set=" + set});

  const bool direct = disk.cache == DiskSpec::Cache::kDirect;
  const bool noFlush = disk.cache == DiskSpec::Cache::kUnsafe;
  const std::string cache = "\"cache\":{\"direct\":" + flag(direct) + ",\"no-flush\":" + flag(noFlush) + "}";
  const std::string common =
      ",\"read-only\":" + flag(disk.readOnly) + ",\"auto-read-only\":false,\"discard\":\"unmap\"," + cache + "}";
  // Locks belong to the host: an unlock here would free the host's own.
  arguments.insert(arguments.end(), {"-blockdev", "{\"driver\":\"file\",\"node-name\":" + jsonString(node + "-file") +
                                                      ",\"filename\":\"/dev/fdset/" + set +
                                                      "\",\"aio\":\"threads\",\"locking\":\"off\"" + common});
  // The format is what the configuration says, and an image names no other file: never what its content asks for.
  const bool qcow2 = disk.format == DiskSpec::Format::kQcow2;
  arguments.insert(arguments.end(),
                   {"-blockdev", std::string("{\"driver\":") + (qcow2 ? "\"qcow2\"" : "\"raw\"") +
                                     ",\"node-name\":" + jsonString(node) + ",\"file\":" + jsonString(node + "-file") +
                                     (qcow2 ? ",\"backing\":null" : "") + common});
  std::string device =
      "{\"driver\":\"virtio-blk-pci\",\"id\":" + jsonString(node + "-device") + ",\"drive\":" + jsonString(node);
  if (!disk.serial.empty()) {
    device += ",\"serial\":" + jsonString(disk.serial);
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

std::string cpuModel(const MachineSpec& spec) {
  std::string model = spec.kvm ? "host" : "max";
  if (!spec.kvm) {
    model += ",la57=off";  // five levels of page tables only cost time when translated
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
  add("-machine", "q35,vmport=off,smm=off,usb=off,sata=off,smbus=off");
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
  add("-m", "size=" + std::to_string(spec.memoryBytes) + "B");
  if (!spec.uuid.empty()) {
    add("-uuid", spec.uuid);
  }
  add("-object", "main-loop,id=main,thread-pool-max=" + std::to_string(kMaxDiskThreads));

  int set = kFirstStreamSet;
  add("-mon", "chardev=" + addStream("qmp", descriptors.qmp, set++, arguments) + ",mode=control");
  for (std::size_t index = 0; index < descriptors.consoles.size(); ++index) {
    const std::string id = "console" + std::to_string(index);
    add("-serial", "chardev:" + addStream(id, descriptors.consoles[index], set++, arguments));
  }

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
  if (spec.rng) {
    add("-object", "rng-builtin,id=rng0");
    add("-device", R"({"driver":"virtio-rng-pci","rng":"rng0"})");
  }
  add("-device", R"({"driver":"pvpanic"})");
  return arguments;
}

}  // namespace qemubackend
