#include "worker-kvm/acpi/aml.h"

#include <gtest/gtest.h>

#include "tests/support/refusal.h"
#include "vmmhost/error.h"
#include "worker-kvm/acpi/resources.h"

namespace vmmhost::kvm::acpi::aml {
namespace {

Bytes text(std::string_view characters) {
  return {characters.begin(), characters.end()};
}

TEST(PackageLength, eachSize_countsItself) {
  EXPECT_EQ(packageLength(0), Bytes({0x01}));
  EXPECT_EQ(packageLength(62), Bytes({0x3f}));  // 63 is what one byte holds
  EXPECT_EQ(packageLength(63), Bytes({0x41, 0x04}));
  EXPECT_EQ(packageLength(4093), Bytes({0x4f, 0xff}));  // 4095 is what two bytes hold
  EXPECT_EQ(packageLength(4094), Bytes({0x81, 0x00, 0x01}));
  EXPECT_EQ(packageLength(0xfffff - 3), Bytes({0x8f, 0xff, 0xff}));
  EXPECT_EQ(packageLength(0xfffff - 2), Bytes({0xc1, 0x00, 0x00, 0x01}));
  EXPECT_EQ(packageLength(0xfffffff - 4), Bytes({0xcf, 0xff, 0xff, 0xff}));
}

TEST(PackageLength, moreThanFourBytesHold_isRefused) {
  tests::expectRefusal("ACPI: ", [] { packageLength(0xfffffff - 3); });
}

TEST(NameString, eachForm_hasItsPrefix) {
  EXPECT_EQ(nameString("_CRS"), text("_CRS"));
  EXPECT_EQ(nameString("GED"), text("GED_"));
  EXPECT_EQ(nameString("\\_SB"), text("\\_SB_"));
  EXPECT_EQ(nameString("^^PCI0"), text("^^PCI0"));
  EXPECT_EQ(nameString("\\_SB.PCI0"), join({text("\\"), {0x2e}, text("_SB_PCI0")}));
  EXPECT_EQ(nameString("\\_SB.PCI0.S01"), join({text("\\"), {0x2f, 3}, text("_SB_PCI0S01_")}));
  EXPECT_EQ(nameString("\\"), join({text("\\"), {0x00}}));
  EXPECT_EQ(nameString(""), Bytes({0x00}));
}

TEST(NameString, whatIsNoName_isRefused) {
  for (const char* path : {"LONGER", "low", "0ABC", "A..B", "A.", ".A", "A B", "\\^A", "^\\A", "A^B"}) {
    EXPECT_THROW(nameString(path), Error) << path;
  }
}

TEST(Integer, eachSize_takesTheShortestForm) {
  EXPECT_EQ(integer(0), Bytes({0x00}));
  EXPECT_EQ(integer(1), Bytes({0x01}));
  EXPECT_EQ(integer(2), Bytes({0x0a, 0x02}));
  EXPECT_EQ(integer(0xff), Bytes({0x0a, 0xff}));
  EXPECT_EQ(integer(0x100), Bytes({0x0b, 0x00, 0x01}));
  EXPECT_EQ(integer(0x10000), Bytes({0x0c, 0x00, 0x00, 0x01, 0x00}));
  EXPECT_EQ(integer(0x100000000), Bytes({0x0e, 0, 0, 0, 0, 1, 0, 0, 0}));
  EXPECT_EQ(integer(UINT64_MAX), Bytes({0x0e, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}));
}

TEST(Objects, areEncodedAsTheSpecificationHasThem) {
  EXPECT_EQ(string("AB"), Bytes({0x0d, 'A', 'B', 0}));
  EXPECT_EQ(buffer({7, 8}), Bytes({0x11, 0x05, 0x0a, 0x02, 7, 8}));
  EXPECT_EQ(package({integer(5), integer(0)}), Bytes({0x12, 0x05, 2, 0x0a, 5, 0}));
  EXPECT_EQ(eisaId("PNP0A08"), Bytes({0x0c, 0x41, 0xd0, 0x0a, 0x08}));
  EXPECT_EQ(uuid("33DB4D5B-1ff7-401c-9657-7441c03dd766"),
            Bytes({0x11, 0x13, 0x0a, 0x10, 0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f,
                   0x1c, 0x40, 0x96, 0x57, 0x74, 0x41, 0xc0, 0x3d, 0xd7, 0x66}));
}

TEST(Objects, whatCannotBeEncoded_isRefused) {
  EXPECT_THROW(string("caf\xc3\xa9"), Error);
  EXPECT_THROW(string("line\n"), Error);
  EXPECT_THROW(package(std::vector<Bytes>(256, integer(0))), Error);
  for (const char* id : {"PNP0A0", "pnp0A08", "PNP0A0G", "PNP0A080"}) {
    EXPECT_THROW(eisaId(id), Error) << id;
  }
  for (const char* id : {"", "33db4d5b-1ff7-401c-9657-7441c03dd76", "33db4d5b11ff7-401c-9657-7441c03dd766",
                         "33db4d5b-1ff7-401c-9657-7441c03dd76g"}) {
    EXPECT_THROW(uuid(id), Error) << id;
  }
}

TEST(Terms, areEncodedAsTheSpecificationHasThem) {
  EXPECT_EQ(name("_UID", integer(1)), join({{0x08}, text("_UID"), {0x01}}));
  EXPECT_EQ(scope("\\_SB", {{0xaa}}), join({{0x10, 0x07}, text("\\_SB_"), {0xaa}}));
  EXPECT_EQ(device("GED", {{0xaa}}), join({{0x5b, 0x82, 0x06}, text("GED_"), {0xaa}}));
  EXPECT_EQ(method("_EVT", 1, Serialize::kYes, {{0xaa}}), join({{0x14, 0x07}, text("_EVT"), {0x09, 0xaa}}));
  EXPECT_EQ(method("_STA", 7, Serialize::kNo, {}), join({{0x14, 0x06}, text("_STA"), {0x07}}));
  EXPECT_THROW(method("_STA", 8, Serialize::kNo, {}), Error);
  EXPECT_EQ(operationRegion("EREG", RegionSpace::kSystemIo, 0x608, 1),
            join({{0x5b, 0x80}, text("EREG"), {0x01, 0x0b, 0x08, 0x06, 0x01}}));
  EXPECT_EQ(byteField("EREG", "ESEL"), join({{0x5b, 0x81, 0x0b}, text("EREG"), {0x41}, text("ESEL"), {0x08}}));
  EXPECT_EQ(createDWordField(argument(3), 8, "CDW3"), join({{0x8a, 0x6b, 0x0a, 0x08}, text("CDW3")}));
  EXPECT_EQ(store(argument(0), local(7)), Bytes({0x70, 0x68, 0x67}));
  EXPECT_EQ(bitAnd(local(0), integer(1)), Bytes({0x7b, 0x60, 0x01, 0x00}));
  EXPECT_EQ(bitOr(local(0), integer(1), local(1)), Bytes({0x7d, 0x60, 0x01, 0x61}));
  EXPECT_EQ(logicalNot(equal(local(0), local(1))), Bytes({0x92, 0x93, 0x60, 0x61}));
  EXPECT_EQ(ifTrue(local(0), {{0xaa}, {0xbb}}), Bytes({0xa0, 0x04, 0x60, 0xaa, 0xbb}));
  EXPECT_EQ(notify("PWRB", 0x80), join({{0x86}, text("PWRB"), {0x0a, 0x80}}));
  EXPECT_EQ(giveBack(local(0)), Bytes({0xa4, 0x60}));
}

TEST(Resources, areEncodedAsTheSpecificationHasThem) {
  EXPECT_EQ(ioPorts(0x3f8, 8), Bytes({0x47, 0x01, 0xf8, 0x03, 0xf8, 0x03, 0x01, 0x08}));
  EXPECT_EQ(memory32Fixed({0xe8000000, 0x100000}),
            Bytes({0x86, 0x09, 0x00, 0x01, 0x00, 0x00, 0x00, 0xe8, 0x00, 0x00, 0x10, 0x00}));
  EXPECT_EQ(edgeInterrupt(5), Bytes({0x89, 0x06, 0x00, 0x03, 0x01, 0x05, 0x00, 0x00, 0x00}));
  EXPECT_EQ(wordBusNumbers(0, 0), Bytes({0x88, 0x0d, 0x00, 0x02, 0x0c, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x00}));
  EXPECT_EQ(wordIoWindow({0xc000, 0x4000}),
            (Bytes{0x88, 0x0d, 0, 1, 0x0c, 3, 0, 0, 0, 0xc0, 0xff, 0xff, 0, 0, 0, 0x40}));
  EXPECT_EQ(dwordMemoryWindow({0xc0000000, 0x28000000}),
            Bytes({0x87, 0x17, 0x00, 0x00, 0x0c, 0x01, 0, 0, 0, 0, 0, 0, 0,
                   0xc0, 0xff, 0xff, 0xff, 0xe7, 0,    0, 0, 0, 0, 0, 0, 0x28}));
  EXPECT_EQ(qwordMemoryWindow({0x100000000, 0x1000000000}),
            Bytes({0x8a, 0x2b, 0x00, 0x00, 0x0c, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0,    0, 0, 0xff,
                   0xff, 0xff, 0xff, 0x10, 0,    0,    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0}));
  EXPECT_EQ(resourceTemplate({edgeInterrupt(5)}), join({{0x11, 0x0e, 0x0a, 0x0b}, edgeInterrupt(5), {0x79, 0x00}}));
}

}  // namespace
}  // namespace vmmhost::kvm::acpi::aml
