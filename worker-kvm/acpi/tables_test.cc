#include "worker-kvm/acpi/tables.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "vmmhost/error.h"
#include "worker-kvm/arch/x86_64/layout.h"

namespace vmmhost::kvm::acpi {
namespace {

constexpr std::uint64_t kBase = 0xe0000;
constexpr std::uint64_t kRoom = 0x10000;

MachineDescription machineOf(std::uint32_t cpus) {
  MachineDescription machine;
  machine.cpus = cpus;
  machine.pciWindow32 = {0xc0000000, 0x28000000};
  machine.pciWindow64 = memory::Range{0x100000000, 0x1000000000};
  return machine;
}

template <typename Value>
Value at(const Tables& tables, std::uint64_t address) {
  Value value{};
  EXPECT_LE(address - kBase + sizeof value, tables.bytes.size());
  std::memcpy(&value, tables.bytes.data() + (address - kBase), sizeof value);
  return value;
}

std::string signatureAt(const Tables& tables, std::uint64_t address) {
  const auto value = at<std::array<char, 4>>(tables, address);
  return {value.begin(), value.end()};
}

std::uint8_t sumOf(const Tables& tables, std::uint64_t address, std::uint64_t bytes) {
  const auto first = tables.bytes.begin() + static_cast<std::ptrdiff_t>(address - kBase);
  return std::accumulate(first, first + static_cast<std::ptrdiff_t>(bytes), std::uint8_t{0});
}

// What an operating system finds on the way from the RSDP.
std::vector<std::uint64_t> tablesOfXsdt(const Tables& tables) {
  const auto xsdt = at<std::uint64_t>(tables, kBase + 24);
  EXPECT_EQ(signatureAt(tables, xsdt), "XSDT");
  std::vector<std::uint64_t> found;
  for (std::uint64_t offset = 36; offset < at<std::uint32_t>(tables, xsdt + 4); offset += 8) {
    found.push_back(at<std::uint64_t>(tables, xsdt + offset));
  }
  return found;
}

std::uint64_t find(const Tables& tables, const std::string& signature) {
  for (const std::uint64_t address : tablesOfXsdt(tables)) {
    if (signatureAt(tables, address) == signature) {
      return address;
    }
  }
  ADD_FAILURE() << signature << " is not in the XSDT";
  return kBase;
}

TEST(AcpiTables, everyTable_isReachedFromThePointerAndSumsToZero) {
  const Tables tables = build(machineOf(2), kBase, kRoom);
  EXPECT_EQ(std::memcmp(tables.bytes.data(), "RSD PTR ", 8), 0);
  EXPECT_EQ(sumOf(tables, kBase, 20), 0);
  EXPECT_EQ(sumOf(tables, kBase, 36), 0);
  std::vector<std::uint64_t> found = tablesOfXsdt(tables);
  found.push_back(at<std::uint64_t>(tables, kBase + 24));
  found.push_back(at<std::uint64_t>(tables, find(tables, "FACP") + 140));
  std::sort(found.begin(), found.end());
  std::vector<std::uint64_t> listed;
  for (const Table& table : tables.contents) {
    if (table.address != kBase) {
      listed.push_back(table.address);
      EXPECT_EQ(signatureAt(tables, table.address), table.signature);
      EXPECT_EQ(at<std::uint32_t>(tables, table.address + 4), table.bytes) << table.signature;
      EXPECT_EQ(sumOf(tables, table.address, table.bytes), 0) << table.signature;
    }
  }
  std::sort(listed.begin(), listed.end());
  EXPECT_EQ(found, listed);
  EXPECT_EQ(signatureAt(tables, at<std::uint64_t>(tables, find(tables, "FACP") + 140)), "DSDT");
}

TEST(AcpiTables, madt_listsEveryProcessorAndTheIoApic) {
  for (const std::uint32_t cpus : {1U, 2U, 64U}) {
    const Tables tables = build(machineOf(cpus), kBase, kRoom);
    const std::uint64_t madt = find(tables, "APIC");
    EXPECT_EQ(at<std::uint32_t>(tables, madt + 36), 0xfee00000U);
    std::uint64_t entry = madt + 44;
    for (std::uint32_t index = 0; index < cpus; ++index, entry += 8) {
      EXPECT_EQ(at<std::uint16_t>(tables, entry), 0x0800U);
      EXPECT_EQ(at<std::uint8_t>(tables, entry + 2), index);
      EXPECT_EQ(at<std::uint8_t>(tables, entry + 3), index);
      EXPECT_EQ(at<std::uint32_t>(tables, entry + 4), 1U);
    }
    EXPECT_EQ(at<std::uint16_t>(tables, entry), 0x0c01U);
    EXPECT_EQ(at<std::uint32_t>(tables, entry + 4), 0xfec00000U);
    EXPECT_EQ(at<std::uint32_t>(tables, madt + 4), entry + 12 - madt);
  }
}

TEST(AcpiTables, mcfg_hasOneBus) {
  const Tables tables = build(machineOf(1), kBase, kRoom);
  const std::uint64_t mcfg = find(tables, "MCFG");
  EXPECT_EQ(at<std::uint32_t>(tables, mcfg + 4), 60U);
  EXPECT_EQ(at<std::uint64_t>(tables, mcfg + 44), arch::kEcamStart);
  EXPECT_EQ(at<std::uint32_t>(tables, mcfg + 52), 0U);  // segment, first and last bus
}

TEST(AcpiTables, fadt_hasPowerAndResetWhereTheDevicesAre) {
  const Tables tables = build(machineOf(1), kBase, kRoom);
  const std::uint64_t fadt = find(tables, "FACP");
  EXPECT_EQ(at<std::uint32_t>(tables, fadt + 4), 276U);
  EXPECT_NE(at<std::uint32_t>(tables, fadt + 112) & 1U << 20, 0U);  // hardware-reduced
  EXPECT_NE(at<std::uint32_t>(tables, fadt + 112) & 1U << 10, 0U);  // the reset register is there
  const std::array<std::uint8_t, 4> port = {1, 8, 0, 1};            // I/O, 8 bits
  EXPECT_EQ((at<std::array<std::uint8_t, 4>>(tables, fadt + 116)), port);
  EXPECT_EQ(at<std::uint64_t>(tables, fadt + 120), 0x64U);
  EXPECT_EQ(at<std::uint8_t>(tables, fadt + 128), 0xfe);
  for (const std::uint64_t offset : {244, 256}) {
    EXPECT_EQ((at<std::array<std::uint8_t, 4>>(tables, fadt + offset)), port);
    EXPECT_EQ(at<std::uint64_t>(tables, fadt + offset + 4), 0x600U);
  }
}

TEST(AcpiTables, whatDevicesContribute_isInTheDsdt) {
  MachineDescription machine = machineOf(1);
  const Tables without = build(machine, kBase, kRoom);
  machine.deviceTerms.push_back(aml::device("GENC", {aml::name("_HID", aml::string("VMMH0001"))}));
  machine.events.push_back({0x02, "\\_SB.GENC", 0x80});
  const Tables with = build(machine, kBase, kRoom);
  const auto contains = [](const Tables& tables, const aml::Bytes& bytes) {
    return std::search(tables.bytes.begin(), tables.bytes.end(), bytes.begin(), bytes.end()) != tables.bytes.end();
  };
  const aml::Bytes event = aml::ifTrue(aml::bitAnd(aml::local(0), aml::integer(2)), {aml::notify("\\_SB.GENC", 0x80)});
  EXPECT_TRUE(contains(with, machine.deviceTerms.front()));
  EXPECT_TRUE(contains(with, event));
  EXPECT_FALSE(contains(without, event));
}

TEST(AcpiTables, machineThatCannotBeDescribed_isRefused) {
  const auto refused = [](const MachineDescription& machine, std::uint64_t address = kBase,
                          std::uint64_t room = kRoom) {
    try {
      build(machine, address, room);
    } catch (const Error& error) {
      const char* why =
          room == kRoom ? "ACPI: a machine that cannot be described" : "bytes, and there is room for 1024";
      EXPECT_NE(error.message().find(why), std::string::npos) << error.message();
      return error.code() == ErrorCode::kInvalidArgument;
    }
    return false;
  };
  EXPECT_FALSE(refused(machineOf(1)));
  EXPECT_TRUE(refused(machineOf(0)));
  EXPECT_TRUE(refused(machineOf(65)));
  EXPECT_TRUE(refused(machineOf(1), kBase + 8));
  EXPECT_TRUE(refused(machineOf(64), kBase, 1024));
  MachineDescription machine = machineOf(1);
  machine.pciWindow32 = {0xf0000000, 0x20000000};
  EXPECT_TRUE(refused(machine));
  machine = machineOf(1);
  machine.pciWindow64 = memory::Range{0xf0000000, 0x1000};
  EXPECT_TRUE(refused(machine));
}

}  // namespace
}  // namespace vmmhost::kvm::acpi
