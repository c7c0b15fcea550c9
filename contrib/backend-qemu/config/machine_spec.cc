#include "config/machine_spec.h"

#include <algorithm>
#include <bit>
#include <string_view>

namespace qemubackend {

namespace schema = vmmhost::schema;
using vmmhost::Error;
using vmmhost::ErrorCode;

namespace {

constexpr std::size_t kMaxCmdlineBytes = 2047;
constexpr std::size_t kMaxSerialBytes = 20;  // virtio 1.2, 5.2.6.1: VIRTIO_BLK_ID_BYTES
constexpr std::uint16_t kMinMtu = 68;        // virtio 1.2, 5.1.4.1

[[noreturn]] void unsupported(std::string_view field, std::string_view why, std::string hint = {}) {
  throw Error(ErrorCode::kUnsupported, std::string(field) + ": " + std::string(why), std::move(hint)).withField(field);
}

[[noreturn]] void invalid(std::string_view field, std::string_view why) {
  throw Error(ErrorCode::kInvalidArgument, std::string(field) + ": " + std::string(why)).withField(field);
}

bool isSet(schema::FileRef::Reader file) {
  return file.getResource() != 0 || file.getPath().size() != 0;
}

bool isPlainText(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char byte) { return byte >= 0x20 && byte != 0x7f; });
}

// What a disk or a machine may show to the guest as an identifier: printable ASCII, so that no layer quotes it.
bool isIdentifier(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char byte) {
    return (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') ||
           byte == '-' || byte == '_' || byte == '.';
  });
}

// Hexadecimal digits where `pattern` has an x, its own characters elsewhere.
bool matchesHex(std::string_view text, std::string_view pattern) {
  if (text.size() != pattern.size()) {
    return false;
  }
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool digit = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    if (pattern[i] == 'x' ? !digit : c != pattern[i]) {
      return false;
    }
  }
  return true;
}

bool isUuid(std::string_view text) {
  return matchesHex(text, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx");
}

// Of one card, not of a group: the lowest bit of the first byte is 0.
bool isMac(std::string_view text) {
  return matchesHex(text, "xx:xx:xx:xx:xx:xx") &&
         std::string_view("02468aceACE").find(text[1]) != std::string_view::npos;
}

std::string_view view(capnp::Text::Reader text) {
  return {text.begin(), text.size()};
}

void readBoot(schema::VmConfig::Reader config, MachineSpec& spec) {
  if (!config.hasBoot() || !isSet(config.getBoot().getKernel())) {
    if (config.hasBoot() && isSet(config.getBoot().getFirmware())) {
      unsupported("boot.firmware", "backend qemu boots kernels only", "give boot.kernel instead");
    }
    invalid("boot.kernel", "backend qemu needs a kernel");
  }
  const auto boot = config.getBoot();
  if (isSet(boot.getFirmware())) {
    unsupported("boot.firmware", "backend qemu boots kernels only");
  }
  spec.kernelResource = boot.getKernel().getResource();
  spec.hasInitrd = isSet(boot.getInitrd());
  spec.initrdResource = boot.getInitrd().getResource();
  spec.cmdline = std::string(view(boot.getCmdline()));
  if (spec.cmdline.size() > kMaxCmdlineBytes) {
    invalid("boot.cmdline", "longer than 2047 bytes");
  }
  if (!isPlainText(spec.cmdline)) {
    invalid("boot.cmdline", "contains a control character");
  }
}

void readCpus(schema::VmConfig::Reader config, MachineSpec& spec) {
  const auto cpus = config.getCpus();
  spec.cpus = cpus.getCount();
  if (spec.cpus == 0 || spec.cpus > kMaxCpus) {
    invalid("cpus.count", "backend qemu takes 1 to " + std::to_string(kMaxCpus) + ", not " + std::to_string(spec.cpus));
  }
  if (cpus.getMax() != 0 && cpus.getMax() != spec.cpus) {
    unsupported("cpus.max", "backend qemu does not plug CPUs in");
  }
  spec.threadsPerCore = std::max<std::uint32_t>(cpus.getThreadsPerCore(), 1);
  if (spec.threadsPerCore > spec.cpus || spec.cpus % spec.threadsPerCore != 0) {
    invalid("cpus.threadsPerCore", "does not divide cpus.count");
  }
  if (!std::has_single_bit(spec.threadsPerCore)) {
    unsupported("cpus.threadsPerCore",
                "backend qemu takes a power of 2, not " + std::to_string(spec.threadsPerCore) +
                    ": guests that take the threads of a core apart by bits of their numbers do not boot",
                "there are processors with 1, 2 and 4 threads a core");
  }
  const std::uint32_t cores = spec.cpus / spec.threadsPerCore;
  spec.coresPerSocket = cpus.getCoresPerSocket() == 0 ? cores : cpus.getCoresPerSocket();
  if (spec.coresPerSocket > cores || cores % spec.coresPerSocket != 0) {
    invalid("cpus.coresPerSocket", "does not divide the number of cores");
  }
}

void readMemory(schema::VmConfig::Reader config, MachineSpec& spec) {
  const auto memory = config.getMemory();
  spec.memoryBytes = memory.getSize();
  if (spec.memoryBytes < kMinMemoryBytes || spec.memoryBytes % 4096 != 0 ||
      spec.memoryBytes > (std::uint64_t{1} << 40)) {
    invalid("memory.size", "backend qemu takes 8 MiB to 1 TiB in whole pages of 4096 bytes, not " +
                               std::to_string(spec.memoryBytes) + " bytes");
  }
  if (memory.getMaxSize() != 0 && memory.getMaxSize() != spec.memoryBytes) {
    unsupported("memory.maxSize", "backend qemu does not plug memory in");
  }
  if (memory.getShared()) {
    unsupported("memory.shared", "backend qemu keeps guest memory private");
  }
  if (memory.getHugePages()) {
    unsupported("memory.hugePages", "backend qemu does not use huge pages");
  }
}

void readDisks(schema::VmConfig::Reader config, MachineSpec& spec) {
  if (config.getDisks().size() > kMaxDisks) {
    unsupported("disks", "backend qemu takes " + std::to_string(kMaxDisks) + " disks at most");
  }
  for (unsigned index = 0; index < config.getDisks().size(); ++index) {
    const auto disk = config.getDisks()[index];
    const std::string field = "disks[" + std::to_string(index) + "]";
    DiskSpec result;
    if (!isSet(disk.getFile())) {
      invalid(field + ".file", "missing");
    }
    result.resource = disk.getFile().getResource();
    result.readOnly = disk.getReadOnly();
    result.serial = std::string(view(disk.getSerial()));
    if (result.serial.size() > kMaxSerialBytes || !isIdentifier(result.serial)) {
      invalid(field + ".serial", "not 20 bytes at most of [A-Za-z0-9_.-]");
    }
    switch (disk.getCache()) {
      case schema::Disk::Cache::WRITEBACK:
        result.cache = DiskSpec::Cache::kWriteback;
        break;
      case schema::Disk::Cache::DIRECT:
        result.cache = DiskSpec::Cache::kDirect;
        break;
      case schema::Disk::Cache::UNSAFE:
        result.cache = DiskSpec::Cache::kUnsafe;
        break;
      default:
        unsupported(field + ".cache", "backend qemu does not know this mode");
    }
    switch (disk.getFormat()) {
      case schema::Disk::Format::RAW:
        result.format = DiskSpec::Format::kRaw;
        break;
      case schema::Disk::Format::QCOW2:
        result.format = DiskSpec::Format::kQcow2;
        break;
      default:
        unsupported(field + ".format", "backend qemu does not know this format");
    }
    spec.disks.push_back(std::move(result));
  }
}

void checkAttachment(const std::string& field, schema::Nic::Attachment::Reader attachment) {
  switch (attachment.which()) {
    case schema::Nic::Attachment::NONE:
    case schema::Nic::Attachment::TAP:  // the host hands over its queues
      return;
    case schema::Nic::Attachment::NETWORK:
      unsupported(field + ".network", "backend qemu attaches cards to TAP devices", "name one as attachment.tap");
  }
  unsupported(field, "backend qemu knows no such attachment");
}

void readNics(schema::VmConfig::Reader config, MachineSpec& spec) {
  if (config.getNics().size() > kMaxNics) {
    unsupported("nics", "backend qemu takes " + std::to_string(kMaxNics) + " network cards at most");
  }
  for (unsigned index = 0; index < config.getNics().size(); ++index) {
    const auto nic = config.getNics()[index];
    const std::string field = "nics[" + std::to_string(index) + "]";
    NicSpec result;
    result.mac = std::string(view(nic.getMac()));
    if (!result.mac.empty() && !isMac(result.mac)) {
      invalid(field + ".mac", "not the address of a network card such as 52:54:00:12:34:56");
    }
    result.mtu = nic.getMtu();
    if (result.mtu != 0 && result.mtu < kMinMtu) {
      invalid(field + ".mtu", std::to_string(result.mtu) + ", less than " + std::to_string(kMinMtu));
    }
    checkAttachment(field + ".attachment", nic.getAttachment());
    spec.nics.push_back(std::move(result));
  }
}

void readConsoles(schema::VmConfig::Reader config, MachineSpec& spec) {
  const auto consoles = config.getConsoles();
  if (consoles.size() == 0) {
    return;
  }
  if (consoles.size() > kMaxConsoles) {
    unsupported("consoles", "backend qemu takes " + std::to_string(kMaxConsoles) + " consoles at most");
  }
  spec.consoles.clear();
  std::uint32_t serial = 0;
  for (unsigned index = 0; index < consoles.size(); ++index) {
    const std::string field = "consoles[" + std::to_string(index) + "].kind";
    switch (consoles[index].getKind()) {
      case schema::Console::Kind::SERIAL:
        if (++serial > kMaxSerialConsoles) {
          unsupported(field, "backend qemu takes " + std::to_string(kMaxSerialConsoles) + " serial consoles at most");
        }
        spec.consoles.push_back(ConsoleKind::kSerial);
        break;
      case schema::Console::Kind::VIRTIO:
        spec.consoles.push_back(ConsoleKind::kVirtio);
        break;
      default:
        unsupported(field, "backend qemu does not know this kind");
    }
  }
}

void readBalloon(schema::VmConfig::Reader config, MachineSpec& spec) {
  if (!config.hasBalloon()) {
    return;
  }
  const auto balloon = config.getBalloon();
  if (balloon.getTargetSize() > spec.memoryBytes) {
    invalid("balloon.targetSize",
            std::to_string(balloon.getTargetSize()) + " bytes, more than the memory that there is");
  }
  spec.balloon = {balloon.getTargetSize(), balloon.getDeflateOnOom(), balloon.getFreePageReporting()};
}

void readWatchdog(schema::VmConfig::Reader config, MachineSpec& spec) {
  if (!config.hasWatchdog()) {
    return;
  }
  switch (config.getWatchdog().getAction()) {
    case schema::Watchdog::Action::RESET:
      spec.watchdog = WatchdogAction::kReset;
      break;
    case schema::Watchdog::Action::POWER_OFF:
      spec.watchdog = WatchdogAction::kPowerOff;
      break;
    default:
      unsupported("watchdog.action", "backend qemu resets or ends a VM whose watchdog runs out");
  }
}

void readPlatform(schema::VmConfig::Reader config, MachineSpec& spec) {
  if (!config.hasPlatform()) {
    return;
  }
  const auto platform = config.getPlatform();
  const auto machine = view(platform.getMachine());
  if (!machine.empty() && machine != "q35") {
    unsupported("platform.machine", "backend qemu has the machine type q35 only");
  }
  spec.nestedVirtualization = platform.getNestedVirtualization();
  spec.uuid = std::string(view(platform.getUuid()));
  if (!spec.uuid.empty() && !isUuid(spec.uuid)) {
    invalid("platform.uuid", "not a UUID");
  }
  for (const auto option : platform.getOptions()) {
    const auto name = view(option.getName());
    const auto value = view(option.getValue());
    if (name != "accel") {
      const bool printable = name.size() <= 64 && isPlainText(name);
      unsupported("platform.options",
                  "backend qemu has no option '" + (printable ? std::string(name) : "(not printable)") + "'",
                  "it has one: accel, with the values tcg and kvm");
    }
    if (value != "tcg" && value != "kvm") {
      invalid("platform.options.accel", "backend qemu takes tcg or kvm");
    }
    spec.kvm = value == "kvm";
  }
}

// With fewer cores in each socket than a power of 2 the processors' numbers have gaps. Kernels cope with that; but
// where QEMU translates, Linux stands still once it has brought such processors up.
void requireNumbersWithoutGaps(const MachineSpec& spec) {
  if (!spec.kvm && spec.cpus > spec.threadsPerCore * spec.coresPerSocket && !std::has_single_bit(spec.coresPerSocket)) {
    unsupported("cpus.coresPerSocket",
                "where QEMU translates, backend qemu takes a power of 2 for more than one socket, not " +
                    std::to_string(spec.coresPerSocket) + ": Linux hangs where processors' numbers have gaps",
                "leave it out for one socket");
  }
}

}  // namespace

MachineSpec readConfig(schema::VmConfig::Reader config) {
  MachineSpec spec;
  readBoot(config, spec);
  readCpus(config, spec);
  readMemory(config, spec);
  readDisks(config, spec);
  readNics(config, spec);
  readConsoles(config, spec);
  if (config.hasVsock() && config.getVsock().getEnabled()) {
    unsupported("vsock", "backend qemu has no vsock device");
  }
  if (config.getShares().size() != 0) {
    unsupported("shares", "backend qemu does not share folders");
  }
  spec.rng = config.hasRng() && config.getRng().getEnabled();
  readBalloon(config, spec);
  readWatchdog(config, spec);
  readPlatform(config, spec);
  requireNumbersWithoutGaps(spec);
  return spec;
}

}  // namespace qemubackend
