#include "worker-kvm/smbios/tables.h"

#include <algorithm>
#include <span>

#include "vmmhost/error.h"
#include "worker-kvm/arch/x86_64/layout.h"
#include "worker-kvm/memory/byte_writer.h"

namespace vmmhost::kvm::smbios {

namespace {

using Bytes = std::vector<std::uint8_t>;

// The version that the structures below are of.
constexpr std::uint8_t kMajorVersion = 3;
constexpr std::uint8_t kMinorVersion = 1;
constexpr std::size_t kEntryPointBytes = 24;  // 5.2.2
constexpr std::size_t kEntryPointChecksum = 5;
constexpr std::size_t kTableOffset = 32;  // the entry point, aligned
constexpr std::size_t kMaxVersionBytes = 64;

constexpr std::string_view kVendor = "vmmhost";
// Linux takes the year for a machine's age, and before 2023 distrusts PCI windows that the memory map overlaps.
constexpr std::string_view kDate = "01/01/2024";

constexpr std::uint16_t kNoHandle = 0xffff;
constexpr std::uint16_t kNoErrorInformation = 0xfffe;  // 7.17
constexpr std::uint8_t kUnknown = 2;                   // the same in most enumerations
constexpr std::uint8_t kSafe = 3;

enum class Type : std::uint8_t {
  kFirmware = 0,
  kSystem = 1,
  kChassis = 3,
  kProcessor = 4,
  kMemoryArray = 16,
  kMemoryDevice = 17,
  kMappedAddress = 19,
  kBootStatus = 32,
  kEnd = 127,
};

// 6.1: a formatted area, then its strings. Handles are the structures' numbers.
class TableWriter {
 public:
  // Structures are one after the other: a begin() ends the one before.
  std::uint16_t begin(Type type) {
    finish();
    type_ = type;
    open_ = true;
    return handle_;
  }
  template <typename Number>
  void put(std::type_identity_t<Number> value) {
    area_.put<Number>(value);
  }
  void putBytes(const Bytes& bytes) { area_.putBytes(bytes); }
  void putZeros(std::size_t count) { area_.putZeros(count); }
  // The number of a string (6.1.3): 0 for none.
  void putString(std::string_view text) {
    if (text.empty()) {
      put<std::uint8_t>(0);
      return;
    }
    strings_.emplace_back(text);
    put<std::uint8_t>(static_cast<std::uint8_t>(strings_.size()));
  }

  Bytes take() {
    finish();
    return table_.take();
  }

 private:
  static constexpr std::size_t kHeaderBytes = 4;

  void finish() {
    if (!open_) {
      return;
    }
    table_.put<std::uint8_t>(static_cast<std::uint8_t>(type_));
    table_.put<std::uint8_t>(static_cast<std::uint8_t>(kHeaderBytes + area_.size()));
    table_.put<std::uint16_t>(handle_++);
    table_.putBytes(area_.take());
    for (const std::string& text : strings_) {
      table_.putText(text);
      table_.putZeros(1);
    }
    table_.putZeros(strings_.empty() ? 2 : 1);
    area_ = {};
    strings_.clear();
  }

  memory::ByteWriter table_;
  memory::ByteWriter area_;
  std::vector<std::string> strings_;
  Type type_ = Type::kEnd;
  std::uint16_t handle_ = 0;
  bool open_ = false;
};

// 7.1: there is no firmware; this program stands in for it.
void putFirmware(TableWriter& table, const MachineDescription& machine) {
  constexpr std::uint64_t kCharacteristicsNotSupported = 1U << 3;
  constexpr std::uint8_t kAcpiSupported = 1U << 0;
  constexpr std::uint8_t kVirtualMachine = 1U << 4;
  table.begin(Type::kFirmware);
  table.putString(kVendor);
  table.putString(machine.version);
  table.put<std::uint16_t>(0);  // no runtime segment
  table.putString(kDate);
  table.put<std::uint8_t>(0);  // 64 KiB
  table.put<std::uint64_t>(kCharacteristicsNotSupported);
  table.put<std::uint8_t>(kAcpiSupported);
  table.put<std::uint8_t>(kVirtualMachine);
  table.put<std::uint8_t>(0);  // release
  table.put<std::uint8_t>(0);
  table.put<std::uint8_t>(0xff);  // no embedded controller
  table.put<std::uint8_t>(0xff);
  table.put<std::uint16_t>(0);
}

// 7.2.1: the first three fields are little-endian since version 2.6.
Bytes encode(const Uuid& uuid) {
  Bytes bytes(uuid.begin(), uuid.end());
  std::reverse(bytes.begin(), bytes.begin() + 4);
  std::reverse(bytes.begin() + 4, bytes.begin() + 6);
  std::reverse(bytes.begin() + 6, bytes.begin() + 8);
  return bytes;
}

// 7.2
void putSystem(TableWriter& table, const MachineDescription& machine) {
  constexpr std::uint8_t kPowerSwitch = 6;
  table.begin(Type::kSystem);
  table.putString(kVendor);
  table.putString("KVM virtual machine");
  table.putString(machine.version);
  table.putString("");                                    // serial number
  table.putBytes(encode(machine.uuid.value_or(Uuid{})));  // all zeros: not present
  table.put<std::uint8_t>(kPowerSwitch);
  table.putString("");  // stock-keeping unit
  table.putString("");  // family
}

// 7.4
void putChassis(TableWriter& table) {
  constexpr std::uint8_t kOther = 1;
  table.begin(Type::kChassis);
  table.putString(kVendor);
  table.put<std::uint8_t>(kOther);
  table.putZeros(3);               // version, serial number, asset tag
  table.put<std::uint8_t>(kSafe);  // boot-up, power supply and thermal state
  table.put<std::uint8_t>(kSafe);
  table.put<std::uint8_t>(kSafe);
  table.put<std::uint8_t>(kUnknown);  // security
  table.putZeros(4 + 5);  // the maker's, height, power cords, contained elements and their length, stock-keeping unit
}

// 7.5: one socket with a core of one thread for each virtual CPU.
void putProcessor(TableWriter& table, const MachineDescription& machine) {
  constexpr std::uint8_t kCentral = 3;
  constexpr std::uint8_t kPopulatedAndEnabled = 0x41;
  constexpr std::uint8_t kOtherUpgrade = 1;
  constexpr std::uint16_t kCapable64Bit = 1U << 2;
  constexpr std::uint16_t kMultiCore = 1U << 3;
  const auto cores = static_cast<std::uint8_t>(machine.cpus);
  table.begin(Type::kProcessor);
  table.putString("CPU 0");
  table.put<std::uint8_t>(kCentral);
  table.put<std::uint8_t>(kUnknown);  // family: CPUID tells
  table.putString(kVendor);
  table.putZeros(8);              // CPUID tells
  table.putString("");            // version
  table.putZeros(1 + 2 + 2 + 2);  // voltage, external clock, maximum and current speed: unknown
  table.put<std::uint8_t>(kPopulatedAndEnabled);
  table.put<std::uint8_t>(kOtherUpgrade);
  table.put<std::uint16_t>(kNoHandle);  // caches
  table.put<std::uint16_t>(kNoHandle);
  table.put<std::uint16_t>(kNoHandle);
  table.putZeros(3);  // serial number, asset tag, part number
  table.put<std::uint8_t>(cores);
  table.put<std::uint8_t>(cores);  // enabled
  table.put<std::uint8_t>(cores);  // threads
  table.put<std::uint16_t>(kCapable64Bit | (cores > 1 ? kMultiCore : 0));
  table.put<std::uint16_t>(kUnknown);
  table.put<std::uint16_t>(cores);
  table.put<std::uint16_t>(cores);
  table.put<std::uint16_t>(cores);
}

// 7.17, 7.18, 7.20: one module with all memory, and where that is.
void putMemory(TableWriter& table, const MachineDescription& machine) {
  constexpr std::uint8_t kOther = 1;
  constexpr std::uint8_t kSystemMemory = 3;
  constexpr std::uint8_t kNoErrorCorrection = 3;
  constexpr std::uint32_t kExtendedCapacity = 0x80000000;
  constexpr std::uint16_t kExtendedSize = 0x7fff;
  constexpr std::uint8_t kDimm = 9;
  constexpr std::uint8_t kRam = 7;
  constexpr std::uint16_t kOtherDetail = 1U << 1;
  constexpr std::uint32_t kExtendedAddress = 0xffffffff;
  const std::uint64_t kibibytes = machine.memoryBytes >> 10;
  const std::uint64_t mebibytes = machine.memoryBytes >> 20;

  const std::uint16_t array = table.begin(Type::kMemoryArray);
  table.put<std::uint8_t>(kOther);
  table.put<std::uint8_t>(kSystemMemory);
  table.put<std::uint8_t>(kNoErrorCorrection);
  table.put<std::uint32_t>(static_cast<std::uint32_t>(std::min<std::uint64_t>(kibibytes, kExtendedCapacity)));
  table.put<std::uint16_t>(kNoErrorInformation);
  table.put<std::uint16_t>(1);  // devices
  table.put<std::uint64_t>(kibibytes < kExtendedCapacity ? 0 : machine.memoryBytes);

  table.begin(Type::kMemoryDevice);
  table.put<std::uint16_t>(array);
  table.put<std::uint16_t>(kNoErrorInformation);
  table.put<std::uint16_t>(0xffff);  // total and data width: unknown
  table.put<std::uint16_t>(0xffff);
  table.put<std::uint16_t>(static_cast<std::uint16_t>(std::min<std::uint64_t>(mebibytes, kExtendedSize)));
  table.put<std::uint8_t>(kDimm);
  table.put<std::uint8_t>(0);  // of no set
  table.putString("DIMM 0");
  table.putString("");  // bank
  table.put<std::uint8_t>(kRam);
  table.put<std::uint16_t>(kOtherDetail);
  table.put<std::uint16_t>(0);  // speed: unknown
  table.putString(kVendor);
  table.putZeros(3 + 1);  // serial number, asset tag, part number; rank
  table.put<std::uint32_t>(mebibytes < kExtendedSize ? 0 : static_cast<std::uint32_t>(mebibytes));
  table.putZeros(4 * 2);  // configured speed; minimum, maximum and configured voltage: unknown

  for (const memory::Range& range : arch::memoryRanges(machine.memoryBytes)) {
    const std::uint64_t last = range.end() - 1;
    const bool extended = last >> 10 >= kExtendedAddress;
    table.begin(Type::kMappedAddress);
    table.put<std::uint32_t>(extended ? kExtendedAddress : static_cast<std::uint32_t>(range.start >> 10));
    table.put<std::uint32_t>(extended ? kExtendedAddress : static_cast<std::uint32_t>(last >> 10));
    table.put<std::uint16_t>(array);
    table.put<std::uint8_t>(1);  // devices in a row
    table.put<std::uint64_t>(extended ? range.start : 0);
    table.put<std::uint64_t>(extended ? last : 0);
  }
}

Bytes entryPoint(std::uint64_t tableAddress, std::uint32_t tableBytes) {
  memory::ByteWriter writer;
  writer.putText("_SM3_");
  writer.putZeros(1);  // the checksum
  writer.put<std::uint8_t>(kEntryPointBytes);
  writer.put<std::uint8_t>(kMajorVersion);
  writer.put<std::uint8_t>(kMinorVersion);
  writer.put<std::uint8_t>(0);  // revision of the document
  writer.put<std::uint8_t>(1);  // revision of the entry point
  writer.putZeros(1);
  writer.put<std::uint32_t>(tableBytes);
  writer.put<std::uint64_t>(tableAddress);
  Bytes bytes = writer.take();
  bytes[kEntryPointChecksum] = memory::checksumOf(bytes);
  return bytes;
}

std::optional<std::uint8_t> hexadecimalDigit(char character) {
  if (character >= '0' && character <= '9') {
    return static_cast<std::uint8_t>(character - '0');
  }
  const char lower = static_cast<char>(character | 0x20);
  if (lower >= 'a' && lower <= 'f') {
    return static_cast<std::uint8_t>(lower - 'a' + 10);
  }
  return std::nullopt;
}

}  // namespace

std::optional<Uuid> parseUuid(std::string_view text) {
  constexpr std::size_t kTextBytes = 36;
  if (text.size() != kTextBytes) {
    return std::nullopt;
  }
  Uuid uuid{};
  std::size_t digits = 0;
  for (std::size_t index = 0; index < text.size(); ++index) {
    const bool dash = index == 8 || index == 13 || index == 18 || index == 23;
    const auto digit = hexadecimalDigit(text[index]);
    if (dash ? text[index] != '-' : !digit) {
      return std::nullopt;
    }
    if (!dash) {
      uuid[digits / 2] = static_cast<std::uint8_t>(uuid[digits / 2] << 4 | *digit);
      ++digits;
    }
  }
  return uuid;
}

std::vector<std::uint8_t> build(const MachineDescription& machine, std::uint64_t address, std::uint64_t maxBytes) {
  const bool printable = std::all_of(machine.version.begin(), machine.version.end(),
                                     [](char character) { return character >= 0x20 && character < 0x7f; });
  if (address % 16 != 0 || !printable || machine.version.size() > kMaxVersionBytes || machine.cpus == 0 ||
      machine.cpus > arch::kMaxCpus || machine.memoryBytes == 0) {
    throw Error(ErrorCode::kInvalidArgument, "SMBIOS: a machine that cannot be described");
  }
  TableWriter table;
  putFirmware(table, machine);
  putSystem(table, machine);
  putChassis(table);
  putProcessor(table, machine);
  putMemory(table, machine);
  table.begin(Type::kBootStatus);
  table.putZeros(6 + 1);  // reserved; no error (7.33)
  table.begin(Type::kEnd);
  const Bytes structures = table.take();

  Bytes bytes = entryPoint(address + kTableOffset, static_cast<std::uint32_t>(structures.size()));
  bytes.resize(kTableOffset);
  bytes.insert(bytes.end(), structures.begin(), structures.end());
  if (bytes.size() > maxBytes) {
    throw Error(ErrorCode::kInvalidArgument, "SMBIOS: tables of " + std::to_string(bytes.size()) +
                                                 " bytes, and there is room for " + std::to_string(maxBytes));
  }
  return bytes;
}

}  // namespace vmmhost::kvm::smbios
