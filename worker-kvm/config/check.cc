#include "worker-kvm/config/check.h"

#include <algorithm>
#include <charconv>
#include <string>

#include "vmmhost/error.h"
#include "vmmhost/rings.h"
#include "worker-kvm/smbios/tables.h"

namespace vmmhost::kvm::config {

namespace {

constexpr std::uint64_t kPageBytes = 4096;
constexpr std::size_t kMaxCommandLineBytes = 2047;
constexpr std::uint32_t kMaxDisks = 16;
constexpr std::uint32_t kMaxQueuesPerDisk = 4;
constexpr std::uint32_t kMaxNics = 8;
constexpr std::uint32_t kMaxConsoles = 16;
constexpr std::uint16_t kMinMtu = 68;        // RFC 791
constexpr std::size_t kMaxSerialBytes = 20;  // virtio 1.2, 5.2.6.1
constexpr char kIrqchipOption[] = "irqchip";

[[noreturn]] void unsupported(const std::string& field, const std::string& reason) {
  throw Error(ErrorCode::kUnsupported, field + ": " + reason, "remove " + field + " or choose another backend")
      .withField(field);
}

[[noreturn]] void invalid(const std::string& field, const std::string& reason) {
  throw Error(ErrorCode::kInvalidArgument, field + ": " + reason).withField(field);
}

bool isGiven(schema::FileRef::Reader file) {
  return file.getPath().size() != 0 || file.getResource() != 0;
}

// Of one kind.
void checkCount(const std::string& field, std::uint32_t count, std::uint32_t most, const char* what) {
  if (count > most) {
    unsupported(field + '[' + std::to_string(most) + ']',
                "the kvm backend has " + std::to_string(most) + ' ' + what + " at most");
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
  checkCount("consoles", consoles.size(), kMaxConsoles, "consoles");
  bool hasSerial = false;
  for (std::uint32_t index = 0; index < consoles.size(); ++index) {
    if (consoles[index].getKind() != schema::Console::Kind::SERIAL) {
      continue;
    }
    if (hasSerial) {
      unsupported("consoles[" + std::to_string(index) + "].kind", "the kvm backend has one serial console");
    }
    hasSerial = true;
  }
}

void checkDisks(capnp::List<schema::Disk>::Reader disks) {
  checkCount("disks", disks.size(), kMaxDisks, "disks");
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

void checkAttachment(const std::string& field, schema::Nic::Attachment::Reader attachment) {
  switch (attachment.which()) {
    case schema::Nic::Attachment::NONE:
    case schema::Nic::Attachment::TAP:  // the host hands over its queues
      return;
    case schema::Nic::Attachment::NETWORK:
      unsupported(field + ".network", "the kvm backend attaches cards to TAP devices");
  }
  unsupported(field, "the kvm backend knows no such attachment");
}

void checkNics(capnp::List<schema::Nic>::Reader nics) {
  checkCount("nics", nics.size(), kMaxNics, "network cards");
  for (std::uint32_t index = 0; index < nics.size(); ++index) {
    const std::string field = "nics[" + std::to_string(index) + "]";
    // The plugin sees the configuration before the host has chosen an address.
    if (nics[index].getMac().size() != 0 && !parseMac(nics[index].getMac().cStr())) {
      invalid(field + ".mac", "is no address of a network card such as 52:54:00:12:34:56");
    }
    if (nics[index].getMtu() != 0 && nics[index].getMtu() < kMinMtu) {
      invalid(field + ".mtu", std::to_string(nics[index].getMtu()) + ", less than " + std::to_string(kMinMtu));
    }
    checkAttachment(field + ".attachment", nics[index].getAttachment());
  }
}

void checkVsock(schema::Vsock::Reader vsock) {
  // 0: the host chooses. 2 is the host itself, and 0xffffffff means any (virtio 1.2, 5.10.4).
  if (vsock.getCid() != 0 && (vsock.getCid() < 3 || vsock.getCid() == 0xffffffff)) {
    invalid("vsock.cid", std::to_string(vsock.getCid()) + ", not 3 to 4294967294");
  }
}

void checkBalloon(schema::VmConfig::Reader config) {
  const std::uint64_t target = config.getBalloon().getTargetSize();
  if (target > config.getMemory().getSize()) {
    invalid("balloon.targetSize", std::to_string(target) + " bytes, more than the memory that there is");
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
  checkNics(config.getNics());
  checkConsoles(config.getConsoles());
  if (config.hasVsock()) {
    checkVsock(config.getVsock());
  }
  if (config.getShares().size() != 0) {
    unsupported("shares[0]", "the kvm backend has no such device yet");
  }
  if (config.hasBalloon()) {
    checkBalloon(config);
  }
  if (config.hasWatchdog() && config.getWatchdog().getAction() == schema::Watchdog::Action::PAUSE) {
    unsupported("watchdog.action", "the kvm backend resets or ends a VM whose watchdog runs out");
  }
  checkPlatform(config.getPlatform());
}

std::optional<std::array<std::uint8_t, 6>> parseMac(std::string_view text) {
  std::array<std::uint8_t, 6> mac{};
  constexpr std::size_t kTextBytes = 3 * mac.size() - 1;
  if (text.size() != kTextBytes) {
    return std::nullopt;
  }
  for (std::size_t index = 0; index < mac.size(); ++index) {
    const char* first = text.data() + 3 * index;
    const auto [stop, code] = std::from_chars(first, first + 2, mac[index], 16);
    if (code != std::errc() || stop != first + 2 || (index + 1 < mac.size() && first[2] != ':')) {
      return std::nullopt;
    }
  }
  return (mac[0] & 1) == 0 ? std::optional(mac) : std::nullopt;
}

std::uint32_t queuesPerDisk(schema::VmConfig::Reader config) {
  const std::uint32_t disks = std::max(config.getDisks().size(), 1U);
  return std::clamp(std::min(config.getCpus().getCount(), rings::kMaxRings / disks), 1U, kMaxQueuesPerDisk);
}

namespace {

// As many queues as the host opens a TAP device with at most (host/vm/resources.cc); a card without one has a pair too.
std::uint32_t netPairs(schema::VmConfig::Reader config) {
  constexpr std::uint32_t kMostOfANic = 8;
  constexpr std::uint32_t kMost = 64;
  const std::uint32_t nics = config.getNics().size();
  std::uint32_t pairs = 0;
  for (const auto nic : config.getNics()) {
    const bool hasTap = nic.getAttachment().isTap();
    pairs += hasTap ? std::min({config.getCpus().getCount(), kMostOfANic, std::max(1U, kMost / nics)}) : 1;
  }
  return pairs;
}

}  // namespace

std::uint32_t epolls(schema::VmConfig::Reader config) {
  constexpr std::uint32_t kControlSharedAndVsock = 3;
  // Besides the threads of its queues a disk has one for what blocks.
  return kControlSharedAndVsock + config.getDisks().size() * (queuesPerDisk(config) + 1) + netPairs(config);
}

std::uint32_t descriptors(schema::VmConfig::Reader config) {
  // A queue has an eventfd for its doorbell and one for its interrupt; a thread has epoll and an eventfd; a ring or a
  // queue of a TAP device is a descriptor. The rest is what a device has once, with room for what comes and goes.
  constexpr std::uint32_t kUnit = 256;  // ranges that begin so take few rules of a filter
  constexpr std::uint32_t kOnce = 96;
  constexpr std::uint32_t kOfACpu = 2;
  constexpr std::uint32_t kOfADevice = 8;
  constexpr std::uint32_t kOfAQueue = 7;
  constexpr std::uint32_t kOfAPair = 10;
  const std::uint32_t disks = config.getDisks().size();
  const std::uint32_t devices = disks + config.getNics().size() + config.getConsoles().size();
  const std::uint32_t most = kOnce + kOfACpu * config.getCpus().getCount() + kOfADevice * devices +
                             kOfAQueue * disks * queuesPerDisk(config) + kOfAPair * netPairs(config);
  return (most + kUnit - 1) / kUnit * kUnit;
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
