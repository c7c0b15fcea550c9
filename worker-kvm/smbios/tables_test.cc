#include "worker-kvm/smbios/tables.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <numeric>

#include "tests/support/refusal.h"
#include "vmmhost/error.h"

namespace vmmhost::kvm::smbios {
namespace {

constexpr std::uint64_t kBase = 0xf0000;
constexpr std::uint64_t kRoom = 0x10000;
constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

MachineDescription machineOf(std::uint32_t cpus, std::uint64_t memoryBytes) {
  MachineDescription machine;
  machine.version = "1.2.3";
  machine.cpus = cpus;
  machine.memoryBytes = memoryBytes;
  return machine;
}

// The structures as a reader finds them: SMBIOS 3.7, 5.2.2 and 6.1.
struct Structure {
  std::uint8_t type = 0;
  std::vector<std::uint8_t> area;  // with its header
  std::vector<std::string> strings;

  template <typename Value>
  Value at(std::size_t offset) const {
    Value value{};
    EXPECT_LE(offset + sizeof value, area.size());
    std::memcpy(&value, area.data() + offset, sizeof value);
    return value;
  }
  std::string string(std::size_t offset) const {
    const auto number = at<std::uint8_t>(offset);
    return number == 0 ? "" : strings.at(number - 1U);
  }
};

std::vector<Structure> read(const std::vector<std::uint8_t>& bytes) {
  EXPECT_EQ(std::memcmp(bytes.data(), "_SM3_", 5), 0);
  EXPECT_EQ(std::accumulate(bytes.begin(), bytes.begin() + 24, std::uint8_t{0}), 0);
  std::uint32_t length = 0;
  std::uint64_t address = 0;
  std::memcpy(&length, bytes.data() + 12, sizeof length);
  std::memcpy(&address, bytes.data() + 16, sizeof address);
  std::size_t offset = address - kBase;
  EXPECT_EQ(offset + length, bytes.size());
  std::vector<Structure> structures;
  while (offset < bytes.size()) {
    Structure structure;
    structure.type = bytes.at(offset);
    const std::size_t areaBytes = bytes.at(offset + 1);
    structure.area.assign(bytes.begin() + static_cast<std::ptrdiff_t>(offset),
                          bytes.begin() + static_cast<std::ptrdiff_t>(offset + areaBytes));
    EXPECT_EQ(structure.at<std::uint16_t>(2), structures.size()) << "the handle";
    offset += areaBytes;
    while (bytes.at(offset) != 0) {
      structure.strings.emplace_back(reinterpret_cast<const char*>(bytes.data()) + offset);
      offset += structure.strings.back().size() + 1;
    }
    offset += structure.strings.empty() ? 2 : 1;
    structures.push_back(std::move(structure));
  }
  return structures;
}

std::vector<Structure> ofType(const std::vector<Structure>& structures, std::uint8_t type) {
  std::vector<Structure> found;
  for (const Structure& structure : structures) {
    if (structure.type == type) {
      found.push_back(structure);
    }
  }
  return found;
}

TEST(ParseUuid, soundText_isReadInEitherCase) {
  const Uuid expected = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
                         0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
  EXPECT_EQ(parseUuid("01234567-89ab-cdef-0123-456789abcdef"), expected);
  EXPECT_EQ(parseUuid("01234567-89AB-CDEF-0123-456789ABCDEF"), expected);
}

TEST(ParseUuid, otherText_isNone) {
  for (const char* text : {"", "01234567-89ab-cdef-0123-456789abcde", "01234567-89ab-cdef-0123-456789abcdef0",
                           "01234567089ab-cdef-0123-456789abcdef", "0123456g-89ab-cdef-0123-456789abcdef",
                           "{1234567-89ab-cdef-0123-456789abcde}", "-1234567-89ab-cdef-0123-456789abcdef"}) {
    EXPECT_FALSE(parseUuid(text)) << text;
  }
}

TEST(SmbiosTables, everyStructure_isReachedOnceAndTheLastEndsThem) {
  const auto structures = read(build(machineOf(2, 5 * kGiB), kBase, kRoom));
  std::map<int, int> count;
  for (const Structure& structure : structures) {
    ++count[structure.type];
  }
  const std::map<int, int> expected = {{0, 1}, {1, 1}, {3, 1}, {4, 1}, {16, 1}, {17, 1}, {19, 2}, {32, 1}, {127, 1}};
  EXPECT_EQ(count, expected);
  EXPECT_EQ(structures.back().type, 127);
}

TEST(SmbiosTables, identity_isThatOfTheMachine) {
  MachineDescription machine = machineOf(1, kGiB);
  const auto anonymous = ofType(read(build(machine, kBase, kRoom)), 1);
  EXPECT_EQ((anonymous.at(0).at<std::array<std::uint8_t, 16>>(8)), (std::array<std::uint8_t, 16>{}));
  machine.uuid = parseUuid("01234567-89ab-cdef-0123-456789abcdef");
  const auto known = ofType(read(build(machine, kBase, kRoom)), 1);
  // The first three fields are little-endian.
  const std::array<std::uint8_t, 16> expected = {0x67, 0x45, 0x23, 0x01, 0xab, 0x89, 0xef, 0xcd,
                                                 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
  EXPECT_EQ((known.at(0).at<std::array<std::uint8_t, 16>>(8)), expected);
  EXPECT_EQ(known.at(0).string(4), "vmmhost");
  EXPECT_EQ(known.at(0).string(6), "1.2.3");
}

TEST(SmbiosTables, memory_isToldInFullBelowAndAboveEachFieldsLimit) {
  for (const std::uint64_t bytes : {2 * kGiB >> 10, kGiB, 31 * kGiB, 32 * kGiB, 64 * kGiB, 1024 * kGiB}) {
    const auto structures = read(build(machineOf(1, bytes), kBase, kRoom));
    const Structure device = ofType(structures, 17).at(0);
    const auto shortSize = device.at<std::uint16_t>(12);
    EXPECT_EQ(shortSize == 0x7fff ? device.at<std::uint32_t>(28) : shortSize, bytes >> 20) << bytes;
    std::uint64_t mapped = 0;
    for (const Structure& range : ofType(structures, 19)) {
      mapped += (std::uint64_t{range.at<std::uint32_t>(8)} + 1 - range.at<std::uint32_t>(4)) << 10;
    }
    EXPECT_EQ(mapped, bytes);
    const Structure array = ofType(structures, 16).at(0);
    const auto shortCapacity = array.at<std::uint32_t>(7);
    EXPECT_EQ(shortCapacity == 0x80000000 ? array.at<std::uint64_t>(15) : std::uint64_t{shortCapacity} << 10, bytes);
  }
}

TEST(SmbiosTables, processors_areCountedAsCores) {
  const Structure processor = ofType(read(build(machineOf(64, kGiB), kBase, kRoom)), 4).at(0);
  EXPECT_EQ(processor.at<std::uint8_t>(0x23), 64);
  EXPECT_EQ(processor.at<std::uint8_t>(0x25), 64);
  EXPECT_EQ(processor.at<std::uint16_t>(0x2e), 64);
}

TEST(SmbiosTables, machineThatCannotBeDescribed_isRefused) {
  const auto expectRefusal = [](const MachineDescription& machine, std::uint64_t base = kBase) {
    tests::expectRefusal("SMBIOS: a machine that cannot be described", [&] { build(machine, base, kRoom); });
  };
  EXPECT_NO_THROW(build(machineOf(1, kGiB), kBase, kRoom));
  expectRefusal(machineOf(0, kGiB));
  expectRefusal(machineOf(65, kGiB));
  expectRefusal(machineOf(1, kGiB), kBase + 8);
  tests::expectRefusal("bytes, and there is room for 100", [] { build(machineOf(1, kGiB), kBase, 100); });
  MachineDescription machine = machineOf(1, kGiB);
  machine.version = std::string("1.2\0", 4);
  expectRefusal(machine);
  machine.version = std::string(65, '1');
  expectRefusal(machine);
}

// Built for address 0 they are what dmidecode calls a dump.
TEST(SmbiosTables, dmidecode_readsThemWithoutAComplaint) {
  if (std::system("dmidecode --version >/dev/null 2>&1") != 0) {
    std::cerr << "\n*** dmidecode is missing: the tables are read by this test's own parser only ***\n" << std::endl;
    GTEST_SKIP() << "dmidecode is missing";
  }
  MachineDescription machine = machineOf(3, 64 * kGiB);
  machine.uuid = parseUuid("01234567-89ab-cdef-0123-456789abcdef");
  const std::vector<std::uint8_t> bytes = build(machine, 0, kRoom);
  std::string path = testing::TempDir() + "/vmmhost-smbios-XXXXXX";
  const int file = ::mkstemp(path.data());
  ASSERT_GE(file, 0);
  EXPECT_EQ(::write(file, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  ::close(file);
  FILE* pipe = ::popen(("dmidecode --from-dump '" + path + "' 2>&1").c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string output;
  for (int character = 0; (character = std::fgetc(pipe)) != EOF;) {
    output += static_cast<char>(character);
  }
  EXPECT_EQ(::pclose(pipe), 0);
  ::unlink(path.c_str());
  for (const char* expected : {"SMBIOS 3.1.0 present", "UUID: 01234567-89ab-cdef-0123-456789abcdef", "Core Count: 3",
                               "Maximum Capacity: 64 GB", "Size: 64 GB", "System is a virtual machine"}) {
    EXPECT_NE(output.find(expected), std::string::npos) << expected << " in " << output;
  }
  for (const char* complaint : {"Wrong", "Invalid", "BAD INDEX", "OUT OF SPEC", "TRUNCATED", "broken", "mismatch"}) {
    EXPECT_EQ(output.find(complaint), std::string::npos) << output;
  }
}

}  // namespace
}  // namespace vmmhost::kvm::smbios
