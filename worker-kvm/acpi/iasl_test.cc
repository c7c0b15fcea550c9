// The tables as ACPICA's compiler reads them: iasl takes each apart without a complaint, and makes the same bytes again
// of what it wrote.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

#include "worker-kvm/acpi/tables.h"
#include "worker-kvm/arch/x86_64/layout.h"

namespace vmmhost::kvm::acpi {
namespace {

namespace fs = std::filesystem;

class IaslTest : public testing::Test {
 protected:
  void SetUp() override {
    if (std::system("iasl -v >/dev/null 2>&1") != 0) {
      std::cerr << "\n*** iasl is missing (Debian's package acpica-tools): NOTHING is checked here ***\n" << std::endl;
      GTEST_SKIP() << "iasl is missing";
    }
    std::string pattern = (fs::temp_directory_path() / "vmmhost-iasl-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override {
    if (!folder_.empty()) {
      fs::remove_all(folder_);
    }
  }

  std::string content(const std::string& name) const {
    std::ifstream file(folder_ / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // Everything that iasl says; fails unless it ends well.
  std::string iasl(const std::string& arguments) {
    const std::string command = "cd '" + folder_.string() + "' && iasl " + arguments + " >out.txt 2>&1";
    const int status = std::system(command.c_str());
    const std::string output = content("out.txt");
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << output;
    return output;
  }

  void check(const MachineDescription& machine) {
    const Tables tables = build(machine, arch::kAcpiStart, arch::kAcpiBytes);
    for (const Table& table : tables.contents) {
      if (table.signature == "RSD PTR ") {
        continue;  // iasl reads tables with a header only
      }
      const std::uint64_t offset = table.address - arch::kAcpiStart;
      const std::string original(reinterpret_cast<const char*>(tables.bytes.data()) + offset, table.bytes);
      std::ofstream(folder_ / "table.aml", std::ios::binary) << original;

      const std::string apart = iasl("-d table.aml");
      for (const char* complaint : {"rror", "arning", "nvalid", "nknown", "ncorrect"}) {
        EXPECT_EQ(apart.find(complaint), std::string::npos) << table.signature << ": " << apart;
      }
      // -oa: without optimizations.
      const std::string together = iasl("-oa -p again table.dsl");
      EXPECT_NE(together.find("0 Errors, 0 Warnings, 0 Remarks"), std::string::npos) << table.signature << together;
      EXPECT_EQ(withoutCreator(content("again.aml")), withoutCreator(original)) << table.signature;
    }
  }
  // iasl writes its own name into the header.
  static std::string withoutCreator(std::string table) {
    EXPECT_GE(table.size(), 36U);
    table.replace(28, 8, 8, ' ');
    table.replace(9, 1, 1, ' ');  // the checksum
    return table;
  }

  fs::path folder_;
};

MachineDescription machineOf(std::uint32_t cpus) {
  MachineDescription machine;
  machine.cpus = cpus;
  machine.pciWindow32 = {arch::kPciWindow32Start, arch::kPciWindow32Bytes};
  machine.pciWindow64 = arch::pciWindow64(std::uint64_t{64} << 30, 40);
  return machine;
}

TEST_F(IaslTest, smallMachine_isReadAndMadeAgain) {
  MachineDescription machine = machineOf(1);
  machine.pciWindow64.reset();
  machine.serial = false;
  check(machine);
}

TEST_F(IaslTest, largeMachineWithForeignDevices_isReadAndMadeAgain) {
  MachineDescription machine = machineOf(64);
  machine.deviceTerms.push_back(
      aml::device("GENC", {aml::name("_HID", aml::string("VMMH0001")), aml::name("_UID", aml::integer(UINT64_MAX))}));
  machine.events.push_back({0x02, "\\_SB.GENC", 0x80});
  check(machine);
}

}  // namespace
}  // namespace vmmhost::kvm::acpi
