#include "worker-kvm/config/check.h"

#include <string>

#include "vmmhost/error.h"
#include "worker-kvm/smbios/tables.h"

namespace vmmhost::kvm::config {

namespace {

constexpr std::uint64_t kPageBytes = 4096;
constexpr std::size_t kMaxCommandLineBytes = 2047;
constexpr std::uint32_t kMaxDisks = 16;
constexpr std::size_t kMaxSerialBytes = 20;  // virtio 1.2, 5.2.6.1
constexpr char kIrqchipOption[] = "irqchip";

[[noreturn]] void unsupported(const std::string& field, const std::string& reason) {
  throw Error(ErrorCode::kUnsupported, field + ": " + reason, "remove " + field + " or choose another backend");
}

[[noreturn]] void invalid(const std::string& field, const std::string& reason) {
  throw Error(ErrorCode::kInvalidArgument, field + ": " + reason);
}

bool isGiven(schema::FileRef::Reader file) {
  return file.getPath().size() != 0 || file.getResource() != 0;
}

template <typename List>
void refuseList(List list, const std::string& field) {
  if (list.size() != 0) {
    unsupported(field + "[0]", "the kvm backend has no such device yet");
  }
}

void refuseDevice(bool present, const std::string& field) {
  if (present) {
    unsupported(field, "the kvm backend has no such device yet");
  }
}

void checkBoot(schema::Boot::Reader boot) {
  if (isGiven(boot.getFirmware())) {
    unsupported("boot.firmware", "the kvm backend starts kernels directly");
  }
  if (!isGiven(boot.getKernel())) {
    invalid("boot.kernel", "the kvm backend needs a kernel: vmlinux or vmlinuz");
  }
  const auto commandLine = boot.getCmdline();
  if (commandLine.size() > kMaxCommandLineBytes) {
    invalid("boot.cmdline",
            std::to_string(commandLine.size()) + " bytes, more than " + std::to_string(kMaxCommandLineBytes));
  }
  for (const char character : commandLine) {
    if (static_cast<unsigned char>(character) < 0x20 || character == 0x7f) {
      invalid("boot.cmdline", "contains a control character");
    }
  }
}

void checkCpus(schema::Cpus::Reader cpus) {
  const std::uint32_t count = cpus.getCount();
  if (count == 0 || count > kMaxCpus) {
    invalid("cpus.count", std::to_string(count) + ", not 1 to " + std::to_string(kMaxCpus));
  }
  if (cpus.getMax() != 0 && cpus.getMax() != count) {
    unsupported("cpus.max", "the kvm backend cannot add processors to a running VM");
  }
  if (cpus.getThreadsPerCore() != 1) {
    unsupported("cpus.threadsPerCore", "the kvm backend gives each core one thread");
  }
  if (cpus.getCoresPerSocket() != 0 && cpus.getCoresPerSocket() != count) {
    unsupported("cpus.coresPerSocket", "the kvm backend puts all cores into one socket");
  }
}

void checkMemory(schema::Memory::Reader memory) {
  const std::uint64_t size = memory.getSize();
  if (size < kMinMemoryBytes || size > kMaxMemoryBytes) {
    invalid("memory.size", std::to_string(size) + " bytes, not 2 MiB to 1 TiB");
  }
  if (size % kPageBytes != 0) {
    invalid("memory.size", std::to_string(size) + " bytes are no multiple of 4 KiB");
  }
  if (memory.getMaxSize() != 0 && memory.getMaxSize() != size) {
    unsupported("memory.maxSize", "the kvm backend cannot add memory to a running VM");
  }
  if (memory.getHugePages()) {
    unsupported("memory.hugePages", "the kvm backend does not reserve huge pages");
  }
}

void checkConsoles(capnp::List<schema::Console>::Reader consoles) {
  if (consoles.size() > 1) {
    unsupported("consoles[1]", "the kvm backend has one console");
  }
  if (consoles.size() == 1 && consoles[0].getKind() != schema::Console::Kind::SERIAL) {
    unsupported("consoles[0].kind", "the kvm backend has serial consoles only");
  }
}

void checkDisks(capnp::List<schema::Disk>::Reader disks) {
  if (disks.size() > kMaxDisks) {
    unsupported("disks[" + std::to_string(kMaxDisks) + "]",
                "the kvm backend has " + std::to_string(kMaxDisks) + " disks at most");
  }
  for (std::uint32_t index = 0; index < disks.size(); ++index) {
    const std::string field = "disks[" + std::to_string(index) + "]";
    if (disks[index].getFormat() != schema::Disk::Format::RAW) {
      unsupported(field + ".format", "the kvm backend reads raw disks only");
    }
    if (disks[index].getSerial().size() > kMaxSerialBytes) {
      invalid(field + ".serial", "longer than " + std::to_string(kMaxSerialBytes) + " bytes");
    }
  }
}

void checkPlatform(schema::Platform::Reader platform) {
  if (platform.getMachine().size() != 0) {
    unsupported("platform.machine", "the kvm backend has one machine type");
  }
  if (platform.getNestedVirtualization()) {
    unsupported("platform.nestedVirtualization", "the kvm backend hides hardware virtualization from guests");
  }
  if (platform.getUuid().size() != 0 && !smbios::parseUuid(platform.getUuid().cStr())) {
    invalid("platform.uuid", "is no UUID such as 123e4567-e89b-12d3-a456-426614174000");
  }
  const auto options = platform.getOptions();
  for (std::uint32_t index = 0; index < options.size(); ++index) {
    const std::string field = "platform.options[" + std::to_string(index) + "]";
    if (options[index].getName() != kIrqchipOption) {
      unsupported(field, "the kvm backend has no option '" + std::string(options[index].getName().cStr()) +
                             "' (it has: irqchip)");
    }
    if (options[index].getValue() != "split" && options[index].getValue() != "full") {
      invalid(field, "irqchip is 'split' or 'full', not '" + std::string(options[index].getValue().cStr()) + "'");
    }
  }
}

}  // namespace

void check(schema::VmConfig::Reader config) {
  checkBoot(config.getBoot());
  checkCpus(config.getCpus());
  checkMemory(config.getMemory());
  checkDisks(config.getDisks());
  refuseList(config.getNics(), "nics");
  checkConsoles(config.getConsoles());
  refuseDevice(config.hasVsock() && config.getVsock().getEnabled(), "vsock");
  refuseList(config.getShares(), "shares");
  refuseDevice(config.hasBalloon(), "balloon");
  if (config.hasWatchdog() && config.getWatchdog().getAction() == schema::Watchdog::Action::PAUSE) {
    unsupported("watchdog.action", "the kvm backend resets or ends a VM whose watchdog runs out");
  }
  checkPlatform(config.getPlatform());
}

bool wantsFullIrqchip(schema::VmConfig::Reader config) {
  bool full = false;
  for (const auto option : config.getPlatform().getOptions()) {
    if (option.getName() == kIrqchipOption) {
      full = option.getValue() == "full";
    }
  }
  return full;
}

}  // namespace vmmhost::kvm::config
