#include "host/config/vm_config.h"

#include <algorithm>
#include <set>
#include <string>

#include "host/base/text.h"
#include "vmmhost/error.h"

namespace vmmhost::config {

namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kMostMebibytesMeant = 65536;  // a plain number up to here was meant as MiB
constexpr std::uint32_t kMaxNics = 32;
constexpr std::uint32_t kMaxShares = 32;
constexpr std::uint32_t kMaxOptions = 64;
constexpr std::size_t kMaxPathBytes = 4095;  // PATH_MAX less its NUL
constexpr std::size_t kMaxSerialBytes = 20;  // virtio 1.2, 5.2.6.1: VIRTIO_BLK_T_GET_ID
constexpr std::size_t kMaxTagBytes = 36;     // virtio 1.2, 5.11.4
constexpr std::size_t kMaxTapBytes = 15;     // IFNAMSIZ less its NUL

std::string_view view(capnp::Text::Reader text) {
  return {text.begin(), text.size()};
}

[[noreturn]] void refuse(const std::string& field, const std::string& message, std::string hint = {}) {
  throw Error(ErrorCode::kInvalidArgument, field + ": " + message, std::move(hint)).withField(field);
}

bool isNameCharacter(char character) {
  return (character >= 'a' && character <= 'z') || (character >= 'A' && character <= 'Z') ||
         (character >= '0' && character <= '9') || character == '_' || character == '.' || character == '-';
}

bool isName(std::string_view text) {
  return !text.empty() && text.size() <= kMaxNameBytes && text[0] != '.' && text[0] != '-' &&
         std::all_of(text.begin(), text.end(), isNameCharacter);
}

constexpr const char* kNameHint = "1 to 64 of the characters A-Z a-z 0-9 _ . - and not . or - at the start";

void checkText(const std::string& field, std::string_view text, std::size_t maxBytes) {
  if (text.size() > maxBytes) {
    refuse(field, "has " + std::to_string(text.size()) + " bytes, expected at most " + std::to_string(maxBytes));
  }
  if (!isUtf8(text)) {
    refuse(field, inQuotes(text) + " is not UTF-8");
  }
  const bool control = std::any_of(text.begin(), text.end(), [](char character) {
    return static_cast<unsigned char>(character) < 0x20 || character == 0x7f;
  });
  if (control) {
    refuse(field, inQuotes(text) + " has a control character in it");
  }
}

bool isGiven(schema::FileRef::Reader file) {
  return file.getPath().size() > 0;
}

void checkFile(const std::string& field, schema::FileRef::Reader file, bool required) {
  if (file.getResource() != 0) {
    refuse(field + ".resource", "only the host numbers files, when it has opened them");
  }
  if (required && !isGiven(file)) {
    refuse(field, "a file is missing");
  }
  checkText(field, view(file.getPath()), kMaxPathBytes);
}

void checkRange(const std::string& field, std::uint64_t value, std::uint64_t least, std::uint64_t most,
                std::string hint = {}) {
  if (value < least || value > most) {
    refuse(
        field,
        std::to_string(value) + " is out of range; expected " + std::to_string(least) + " to " + std::to_string(most),
        std::move(hint));
  }
}

template <typename List>
void checkCount(const char* field, const List& list, std::uint32_t most) {
  if (list.size() > most) {
    refuse(field, std::to_string(list.size()) + " are too many; expected at most " + std::to_string(most));
  }
}

void checkBoot(schema::Boot::Reader boot) {
  const bool kernel = isGiven(boot.getKernel());
  const bool firmware = isGiven(boot.getFirmware());
  if (kernel && firmware) {
    refuse("boot", "a kernel and a firmware are given; expected one of them");
  }
  if (!kernel && !firmware) {
    refuse("boot", "neither a kernel nor a firmware is given",
           "give one with --kernel FILE, or in the configuration as boot.kernel or boot.firmware");
  }
  checkFile("boot.kernel", boot.getKernel(), false);
  checkFile("boot.firmware", boot.getFirmware(), false);
  checkFile("boot.initrd", boot.getInitrd(), false);
  if (firmware && isGiven(boot.getInitrd())) {
    refuse("boot.initrd", "only a kernel takes an initrd, and a firmware is given");
  }
  checkText("boot.cmdline", view(boot.getCmdline()), kMaxCmdlineBytes);
  if (firmware && boot.getCmdline().size() > 0) {
    refuse("boot.cmdline", "only a kernel takes a command line, and a firmware is given");
  }
}

void checkCpus(schema::Cpus::Reader cpus) {
  checkRange("cpus.count", cpus.getCount(), 1, kMaxCpus);
  const std::uint32_t total = cpus.getMax() == 0 ? cpus.getCount() : cpus.getMax();
  checkRange("cpus.max", total, cpus.getCount(), kMaxCpus);
  checkRange("cpus.threadsPerCore", cpus.getThreadsPerCore(), 1, total);
  if (total % cpus.getThreadsPerCore() != 0) {
    refuse("cpus.threadsPerCore",
           std::to_string(cpus.getThreadsPerCore()) + " does not divide " + std::to_string(total) + " virtual CPUs");
  }
  const std::uint32_t cores = total / cpus.getThreadsPerCore();
  if (cpus.getCoresPerSocket() != 0 && cores % cpus.getCoresPerSocket() != 0) {
    refuse("cpus.coresPerSocket",
           std::to_string(cpus.getCoresPerSocket()) + " does not divide " + std::to_string(cores) + " cores");
  }
}

void checkMemorySize(const std::string& field, std::uint64_t bytes, std::uint64_t least) {
  const bool unitForgotten = bytes != 0 && bytes <= kMostMebibytesMeant;
  checkRange(field, bytes, least, kMaxMemory,
             unitForgotten ? "that is a number of bytes; write " + std::to_string(bytes) + "M for MiB" : "");
  if (bytes % kPage != 0) {
    refuse(field, std::to_string(bytes) + " bytes is not a multiple of 4 KiB");
  }
}

void checkMemory(schema::Memory::Reader memory) {
  checkMemorySize("memory.size", memory.getSize(), kMinMemory);
  if (memory.getMaxSize() != 0) {
    checkMemorySize("memory.maxSize", memory.getMaxSize(), memory.getSize());
  }
}

// Ids within one list: those given, and those made up for the others.
void checkId(std::set<std::string>& ids, const std::string& field, std::string_view given,
             const std::string& otherwise) {
  if (!given.empty() && !isName(given)) {
    refuse(field + ".id", inQuotes(given) + " is not an id", kNameHint);
  }
  const std::string id = given.empty() ? otherwise : std::string(given);
  if (!ids.insert(id).second) {
    refuse(field + ".id", inQuotes(id) + " is there twice");
  }
}

void checkDisks(capnp::List<schema::Disk>::Reader disks) {
  checkCount("disks", disks, kMaxDisks);
  std::set<std::string> ids;
  for (std::uint32_t index = 0; index < disks.size(); ++index) {
    const auto disk = disks[index];
    const std::string field = "disks[" + std::to_string(index) + "]";
    checkFile(field + ".file", disk.getFile(), true);
    checkId(ids, field, view(disk.getId()), "disk" + std::to_string(index));
    checkText(field + ".serial", view(disk.getSerial()), kMaxSerialBytes);
    if (disk.getCache() > schema::Disk::Cache::UNSAFE || disk.getFormat() > schema::Disk::Format::QCOW2) {
      refuse(field, "has a cache mode or format that this version does not know");
    }
  }
}

int hexDigit(char character) {
  if (character >= '0' && character <= '9') {
    return character - '0';
  }
  const char lower = static_cast<char>(character | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// Does `text` consist of hexadecimal digits where `pattern` has an x, and of the same characters elsewhere?
bool matchesHex(std::string_view text, std::string_view pattern) {
  return std::equal(text.begin(), text.end(), pattern.begin(), pattern.end(), [](char found, char expected) {
    return expected == 'x' ? hexDigit(found) >= 0 : found == expected;
  });
}

void checkMac(const std::string& field, std::string_view mac) {
  if (!matchesHex(mac, "xx:xx:xx:xx:xx:xx")) {
    refuse(field, inQuotes(mac) + " is not a MAC address", "such as 52:54:00:12:34:56");
  }
  if ((hexDigit(mac[1]) & 1) != 0) {
    refuse(field, inQuotes(mac) + " is a group address; a network card needs an address of its own");
  }
  if (mac.find_first_not_of("0:") == std::string_view::npos) {
    refuse(field, inQuotes(mac) + " is no address of a network card");
  }
}

std::string lowerCase(std::string_view mac) {
  std::string lower(mac);
  for (char& character : lower) {
    character = character >= 'A' && character <= 'F' ? static_cast<char>(character | 0x20) : character;
  }
  return lower;
}

void checkNics(capnp::List<schema::Nic>::Reader nics) {
  checkCount("nics", nics, kMaxNics);
  std::set<std::string> ids;
  std::set<std::string> macs;
  std::set<std::string> taps;
  for (std::uint32_t index = 0; index < nics.size(); ++index) {
    const auto nic = nics[index];
    const std::string field = "nics[" + std::to_string(index) + "]";
    checkId(ids, field, view(nic.getId()), "nic" + std::to_string(index));
    if (nic.getMac().size() > 0) {
      checkMac(field + ".mac", view(nic.getMac()));
      if (!macs.insert(lowerCase(view(nic.getMac()))).second) {
        refuse(field + ".mac", inQuotes(view(nic.getMac())) + " is there twice");
      }
    }
    if (nic.getMtu() != 0) {
      checkRange(field + ".mtu", nic.getMtu(), 68, 65535);  // virtio 1.2, 5.1.4.1
    }
    const auto attachment = nic.getAttachment();
    switch (attachment.which()) {
      case schema::Nic::Attachment::NONE:
        break;
      case schema::Nic::Attachment::NETWORK:
        if (!isName(view(attachment.getNetwork()))) {
          refuse(field + ".attachment.network", inQuotes(view(attachment.getNetwork())) + " is not a name", kNameHint);
        }
        break;
      case schema::Nic::Attachment::TAP: {
        const std::string_view tap = view(attachment.getTap());
        checkText(field + ".attachment.tap", tap, kMaxTapBytes);
        if (tap.empty() || tap == "." || tap == ".." || tap.find_first_of("/: ") != std::string_view::npos) {
          refuse(field + ".attachment.tap", inQuotes(tap) + " is not the name of a network device");
        }
        if (!taps.insert(std::string(tap)).second) {
          refuse(field + ".attachment.tap", inQuotes(tap) + " is there twice");
        }
        break;
      }
      default:
        refuse(field + ".attachment", "is of a kind that this version does not know");
    }
  }
}

void checkConsoles(capnp::List<schema::Console>::Reader consoles) {
  checkCount("consoles", consoles, kMaxConsoles);
  for (std::uint32_t index = 0; index < consoles.size(); ++index) {
    if (consoles[index].getKind() > schema::Console::Kind::VIRTIO) {
      refuse("consoles[" + std::to_string(index) + "].kind", "is a kind that this version does not know");
    }
  }
}

void checkShares(capnp::List<schema::Share>::Reader shares) {
  checkCount("shares", shares, kMaxShares);
  std::set<std::string> tags;
  for (std::uint32_t index = 0; index < shares.size(); ++index) {
    const auto share = shares[index];
    const std::string field = "shares[" + std::to_string(index) + "]";
    const std::string tag(view(share.getTag()));
    checkText(field + ".tag", tag, kMaxTagBytes);
    if (tag.empty()) {
      refuse(field + ".tag", "is missing");
    }
    if (!tags.insert(tag).second) {
      refuse(field + ".tag", inQuotes(tag) + " is there twice");
    }
    checkFile(field + ".directory", share.getDirectory(), true);
  }
}

void checkPlatform(schema::Platform::Reader platform) {
  if (platform.getMachine().size() > 0 && !isName(view(platform.getMachine()))) {
    refuse("platform.machine", inQuotes(view(platform.getMachine())) + " is not a name", kNameHint);
  }
  if (platform.getUuid().size() > 0 && !matchesHex(view(platform.getUuid()), "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")) {
    refuse("platform.uuid", inQuotes(view(platform.getUuid())) + " is not a UUID",
           "such as 0f8fad5b-d9cb-469f-a165-70867728950e");
  }
  checkCount("platform.options", platform.getOptions(), kMaxOptions);
  std::set<std::string> names;
  for (std::uint32_t index = 0; index < platform.getOptions().size(); ++index) {
    const auto option = platform.getOptions()[index];
    const std::string field = "platform.options[" + std::to_string(index) + "]";
    if (!isName(view(option.getName()))) {
      refuse(field + ".name", inQuotes(view(option.getName())) + " is not a name", kNameHint);
    }
    if (!names.insert(std::string(view(option.getName()))).second) {
      refuse(field + ".name", inQuotes(view(option.getName())) + " is there twice");
    }
    checkText(field + ".value", view(option.getValue()), kMaxPathBytes);
  }
}

}  // namespace

void validateVmName(std::string_view name) {
  if (!isName(name)) {
    refuse("name", inQuotes(name) + " is not a name for a VM", kNameHint);
  }
}

void validateNetworkName(std::string_view name) {
  if (!isName(name)) {
    refuse("name", inQuotes(name) + " is not a name for a network", kNameHint);
  }
}

void validateVmConfig(schema::VmConfig::Reader config) {
  if (config.getName().size() > 0) {
    validateVmName(view(config.getName()));
  }
  checkBoot(config.getBoot());
  checkCpus(config.getCpus());
  checkMemory(config.getMemory());
  checkDisks(config.getDisks());
  checkNics(config.getNics());
  checkConsoles(config.getConsoles());
  checkShares(config.getShares());
  const std::uint32_t cid = config.getVsock().getCid();
  if (cid != 0) {
    checkRange("vsock.cid", cid, 3, 0xfffffffe);  // vsock(7): 0 to 2 and -1 are taken
  }
  if (config.getBalloon().getTargetSize() > config.getMemory().getSize()) {
    refuse("balloon.targetSize", std::to_string(config.getBalloon().getTargetSize()) +
                                     " bytes is more than memory.size, " +
                                     std::to_string(config.getMemory().getSize()));
  }
  if (config.getWatchdog().getAction() > schema::Watchdog::Action::PAUSE) {
    refuse("watchdog.action", "is an action that this version does not know");
  }
  checkPlatform(config.getPlatform());
}

}  // namespace vmmhost::config
