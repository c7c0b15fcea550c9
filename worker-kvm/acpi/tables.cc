#include "worker-kvm/acpi/tables.h"

#include <algorithm>
#include <span>

#include "vmmhost/error.h"
#include "worker-kvm/acpi/dsdt.h"
#include "worker-kvm/arch/x86_64/layout.h"
#include "worker-kvm/memory/byte_writer.h"

namespace vmmhost::kvm::acpi {

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::string_view kOemId = "VMMHST";
constexpr std::string_view kOemTableId = "VMMHOST ";
constexpr std::string_view kCreatorId = "VMMH";
constexpr std::size_t kHeaderBytes = 36;  // table 5.4
constexpr std::size_t kLengthOffset = 4;
constexpr std::size_t kChecksumOffset = 9;
constexpr std::size_t kTableAlignment = 16;

// 5.2.3.2, table 5.1: a generic address structure.
constexpr std::uint8_t kSpaceSystemIo = 1;
constexpr std::uint8_t kAccessByte = 1;

// 5.2.9: the FADT.
constexpr std::uint8_t kFadtRevision = 6;
constexpr std::uint8_t kFadtMinorRevision = 5;
constexpr std::size_t kFadtBytes = 276;
constexpr std::uint8_t kProfileUnspecified = 0;
// 5.2.9.3, table 5.11: neither VGA nor a CMOS clock; nor, being 0, a keyboard controller that is worth probing.
constexpr std::uint16_t kBootNoVga = 1U << 2;
constexpr std::uint16_t kBootNoClock = 1U << 5;
// 5.2.9, table 5.10.
constexpr std::uint32_t kFlagWbinvd = 1U << 0;
constexpr std::uint32_t kFlagNoFixedPowerButton = 1U << 4;
constexpr std::uint32_t kFlagNoFixedSleepButton = 1U << 5;
constexpr std::uint32_t kFlagResetRegister = 1U << 10;
constexpr std::uint32_t kFlagHardwareReduced = 1U << 20;

// 5.2.12: the MADT and its structures.
constexpr std::uint8_t kMadtRevision = 5;
constexpr std::uint8_t kMadtLocalApic = 0;
constexpr std::uint8_t kMadtIoApic = 1;
constexpr std::uint32_t kMadtEnabled = 1;

void putPort(memory::ByteWriter& writer, std::uint16_t port) {
  writer.put<std::uint8_t>(kSpaceSystemIo);
  writer.put<std::uint8_t>(8);  // bits
  writer.put<std::uint8_t>(0);
  writer.put<std::uint8_t>(kAccessByte);
  writer.put<std::uint64_t>(port);
}

Bytes table(std::string_view signature, std::uint8_t revision, const Bytes& body) {
  memory::ByteWriter writer;
  writer.putText(signature);
  writer.put<std::uint32_t>(static_cast<std::uint32_t>(kHeaderBytes + body.size()));
  writer.put<std::uint8_t>(revision);
  writer.put<std::uint8_t>(0);  // the checksum
  writer.putText(kOemId);
  writer.putText(kOemTableId);
  writer.put<std::uint32_t>(1);  // OEM revision
  writer.putText(kCreatorId);
  writer.put<std::uint32_t>(1);
  writer.putBytes(body);
  Bytes bytes = writer.take();
  bytes[kChecksumOffset] = memory::checksumOf(bytes);
  return bytes;
}

// Hardware-reduced ACPI: no fixed hardware but the sleep registers.
Bytes fadt(std::uint64_t dsdt) {
  memory::ByteWriter writer;
  writer.putZeros(45 - kHeaderBytes);  // FACS and DSDT of 32 bits, reserved
  writer.put<std::uint8_t>(kProfileUnspecified);
  writer.putZeros(109 - 46);  // SCI, SMI and the fixed hardware's registers
  writer.put<std::uint16_t>(kBootNoVga | kBootNoClock);
  writer.putZeros(1);
  writer.put<std::uint32_t>(kFlagWbinvd | kFlagNoFixedPowerButton | kFlagNoFixedSleepButton | kFlagResetRegister |
                            kFlagHardwareReduced);
  putPort(writer, arch::kKeyboardCommandPort);
  writer.put<std::uint8_t>(arch::kKeyboardReset);
  writer.putZeros(2);  // boot flags of another architecture
  writer.put<std::uint8_t>(kFadtMinorRevision);
  writer.put<std::uint64_t>(0);  // no FACS
  writer.put<std::uint64_t>(dsdt);
  writer.putZeros(244 - 148);         // the fixed hardware's registers again
  putPort(writer, arch::kPowerPort);  // sleep control (4.8.4.4)
  putPort(writer, arch::kPowerPort);  // sleep status: reads as 0, what is written to clear it is no sleep type
  writer.putText("VMMHOST");          // hypervisor vendor identity
  writer.putZeros(1);
  Bytes body = writer.take();
  if (body.size() != kFadtBytes - kHeaderBytes) {
    throw Error(ErrorCode::kInternal, "ACPI: a FADT of the wrong size");
  }
  return table("FACP", kFadtRevision, body);
}

Bytes madt(std::uint32_t cpus) {
  memory::ByteWriter writer;
  writer.put<std::uint32_t>(static_cast<std::uint32_t>(arch::kLocalApicStart));
  writer.put<std::uint32_t>(0);  // not PC-AT compatible: no pair of 8259 to be masked
  for (std::uint32_t index = 0; index < cpus; ++index) {
    writer.put<std::uint8_t>(kMadtLocalApic);
    writer.put<std::uint8_t>(8);
    writer.put<std::uint8_t>(static_cast<std::uint8_t>(index));  // _UID of the processor device
    writer.put<std::uint8_t>(static_cast<std::uint8_t>(index));  // APIC number
    writer.put<std::uint32_t>(kMadtEnabled);
  }
  writer.put<std::uint8_t>(kMadtIoApic);
  writer.put<std::uint8_t>(12);
  writer.put<std::uint8_t>(0);  // its number
  writer.put<std::uint8_t>(0);
  writer.put<std::uint32_t>(static_cast<std::uint32_t>(arch::kIoApicStart));
  writer.put<std::uint32_t>(0);  // its first global system interrupt
  return table("APIC", kMadtRevision, writer.take());
}

// PCI Firmware 3.3, 4.1.2.
Bytes mcfg() {
  memory::ByteWriter writer;
  writer.putZeros(8);
  writer.put<std::uint64_t>(arch::kEcamStart);
  writer.put<std::uint16_t>(0);  // segment
  writer.put<std::uint8_t>(0);   // first bus
  writer.put<std::uint8_t>(arch::kPciLastBus);
  writer.putZeros(4);
  return table("MCFG", 1, writer.take());
}

Bytes xsdt(const std::vector<std::uint64_t>& tables) {
  memory::ByteWriter writer;
  for (const std::uint64_t address : tables) {
    writer.put<std::uint64_t>(address);
  }
  return table("XSDT", 1, writer.take());
}

constexpr std::size_t kRsdpBytes = 36;         // table 5.3
constexpr std::size_t kRsdpBytesOfAcpi1 = 20;  // which the first checksum covers

Bytes rsdp(std::uint64_t xsdtAddress) {
  memory::ByteWriter writer;
  writer.putText("RSD PTR ");
  writer.putZeros(1);  // the first checksum
  writer.putText(kOemId);
  writer.put<std::uint8_t>(2);   // revision
  writer.put<std::uint32_t>(0);  // no RSDT
  writer.put<std::uint32_t>(kRsdpBytes);
  writer.put<std::uint64_t>(xsdtAddress);
  writer.putZeros(4);  // the second checksum, reserved
  Bytes bytes = writer.take();
  bytes[8] = memory::checksumOf(std::span(bytes).first(kRsdpBytesOfAcpi1));
  bytes[32] = memory::checksumOf(bytes);
  return bytes;
}

void check(const MachineDescription& machine, std::uint64_t address) {
  const bool sound =
      machine.cpus >= 1 && machine.cpus <= arch::kMaxCpus && address % kTableAlignment == 0 &&
      machine.pciWindow32.bytes != 0 && machine.pciWindow32.start < arch::kDeviceGapEnd &&
      machine.pciWindow32.bytes <= arch::kDeviceGapEnd - machine.pciWindow32.start &&
      (!machine.pciWindow64 || (machine.pciWindow64->bytes != 0 && machine.pciWindow64->start >= arch::kDeviceGapEnd &&
                                machine.pciWindow64->bytes <= UINT64_MAX - machine.pciWindow64->start));
  if (!sound) {
    throw Error(ErrorCode::kInvalidArgument, "ACPI: a machine that cannot be described");
  }
}

}  // namespace

Tables build(const MachineDescription& machine, std::uint64_t address, std::uint64_t maxBytes) {
  check(machine, address);
  Tables tables;
  tables.bytes.resize(kRsdpBytes);
  const auto append = [&tables, address](std::string signature, const Bytes& bytes) {
    tables.bytes.resize((tables.bytes.size() + kTableAlignment - 1) / kTableAlignment * kTableAlignment);
    const std::uint64_t place = address + tables.bytes.size();
    tables.contents.push_back({std::move(signature), place, bytes.size()});
    tables.bytes.insert(tables.bytes.end(), bytes.begin(), bytes.end());
    return place;
  };
  tables.contents.push_back({"RSD PTR ", address, kRsdpBytes});
  const std::uint64_t dsdt = append("DSDT", table("DSDT", 2, dsdtTerms(machine)));  // 2: integers have 64 bits
  const std::uint64_t fadtAddress = append("FACP", fadt(dsdt));
  const std::uint64_t madtAddress = append("APIC", madt(machine.cpus));
  const std::uint64_t mcfgAddress = append("MCFG", mcfg());
  const std::uint64_t xsdtAddress = append("XSDT", xsdt({fadtAddress, madtAddress, mcfgAddress}));
  const Bytes pointer = rsdp(xsdtAddress);
  std::copy(pointer.begin(), pointer.end(), tables.bytes.begin());
  if (tables.bytes.size() > maxBytes) {
    throw Error(ErrorCode::kInvalidArgument, "ACPI: tables of " + std::to_string(tables.bytes.size()) +
                                                 " bytes, and there is room for " + std::to_string(maxBytes));
  }
  return tables;
}

}  // namespace vmmhost::kvm::acpi
