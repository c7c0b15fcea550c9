#include "host/vm/qcow2_header.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "host/vm/test_image.h"
#include "vmmhost/error.h"

namespace vmmhost::vm {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

std::span<const std::byte> bytesOf(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::uint64_t planOf(const TestImage& image, std::uint64_t today = 0) {
  return plannedBytes(parseQcow2Header(bytesOf(image.header())), today);
}

std::string refusal(const std::string& header) {
  try {
    parseQcow2Header(bytesOf(header));
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.message();
  }
  return "taken";
}

TEST(Qcow2Header, saysWhatTheImageIs) {
  TestImage image;
  image.clusterBits = 12;
  image.virtualBytes = 10 * kGiB;
  image.l1Entries = 7;
  image.refcountTableClusters = 3;
  image.refcountOrder = 5;
  const Qcow2Header header = parseQcow2Header(bytesOf(image.header()));
  EXPECT_EQ(header.clusterBits, 12u);
  EXPECT_EQ(header.refcountBits, 32u);
  EXPECT_EQ(header.virtualBytes, 10 * kGiB);
  EXPECT_EQ(header.l1Entries, 7u);
  EXPECT_EQ(header.refcountTableClusters, 3u);
  EXPECT_FALSE(header.hasWideL2Entries);
  EXPECT_FALSE(header.keepsMore);
  image.version = 2;  // which has no field for it
  EXPECT_EQ(parseQcow2Header(bytesOf(image.header())).refcountBits, 16u);
}

TEST(Qcow2Header, whatQemuWouldNotTake_isRefused) {
  EXPECT_EQ(refusal(std::string(512, '\0')), "the file is not a qcow2 image");
  EXPECT_EQ(refusal(""), "the file is not a qcow2 image");
  EXPECT_EQ(refusal(TestImage().header().substr(0, 71)), "the file is not a qcow2 image");
  const auto with = [](auto change) {
    TestImage image;
    change(image);
    return refusal(image.header());
  };
  EXPECT_EQ(with([](TestImage&) {}), "taken");
  EXPECT_EQ(with([](TestImage& image) { image.version = 1; }), "a qcow2 image of an unknown version");
  EXPECT_EQ(with([](TestImage& image) { image.version = 4; }), "a qcow2 image of an unknown version");
  EXPECT_EQ(refusal(TestImage().header().substr(0, 103)), "a qcow2 image of an unknown version");
  for (const std::uint32_t bits : {0u, 8u, 22u, 64u, ~0u}) {
    EXPECT_EQ(with([&](TestImage& image) { image.clusterBits = bits; }),
              "a qcow2 image whose clusters are not of 512 bytes to 2 MiB")
        << bits;
  }
  EXPECT_EQ(with([](TestImage& image) { image.refcountOrder = 7; }),
            "a qcow2 image whose reference counts have more than 64 bits");
  EXPECT_EQ(with([](TestImage& image) { image.refcountTableClusters = 0; }), "a qcow2 image without reference counts");
  const std::string tooLarge = "a qcow2 image whose tables are larger than QEMU takes";
  EXPECT_EQ(with([](TestImage& image) { image.virtualBytes = ~std::uint64_t{0}; }), tooLarge);
  EXPECT_EQ(with([](TestImage& image) { image.l1Entries = ~0u; }), tooLarge);
  EXPECT_EQ(with([](TestImage& image) { image.refcountTableClusters = ~0u; }), tooLarge);
}

// Lengths that qemu-img and qemu-io 7.2 gave to images that were written full in random order; see plannedBytes.
TEST(PlannedBytes, areWhatAFullImageTakes_andAMebibyte) {
  struct Full {
    std::uint32_t clusterBits;
    std::uint32_t refcountOrder;
    std::uint64_t virtualBytes;
    std::uint64_t length;
  };
  for (const Full& full : {Full{16, 4, 512 * kMiB, 537198592},
                           {9, 0, 64 * kMiB, 68191744},
                           {12, 4, 256 * kMiB, 269107200},
                           {12, 6, 256 * kMiB, 269500416},
                           {21, 4, 512 * kMiB, 547356672}}) {
    TestImage image;
    image.clusterBits = full.clusterBits;
    image.refcountOrder = full.refcountOrder;
    image.virtualBytes = full.virtualBytes;
    EXPECT_EQ(planOf(image), full.length + kMiB) << full.clusterBits << ' ' << full.refcountOrder;
  }
}

// The same, where a table of counts that was made small grows on the way.
TEST(PlannedBytes, haveRoomForATableOfCountsThatGrows) {
  struct Full {
    std::uint32_t clusterBits;
    std::uint32_t refcountOrder;
    std::uint64_t length;
    std::uint32_t tableClusters;  // that it comes to
  };
  for (const Full& full : {Full{9, 4, 68478976, 9}, {9, 6, 69421056, 34}, {10, 6, 68312064, 5}}) {
    TestImage image;
    image.clusterBits = full.clusterBits;
    image.refcountOrder = full.refcountOrder;
    image.virtualBytes = 64 * kMiB;
    EXPECT_GE(planOf(image), full.length + kMiB / 2);
    EXPECT_LE(planOf(image), full.length + 2 * kMiB);
    // Against one that is large enough from the beginning: the new one, half as large again, and up to as many clusters
    // as one block counts passed over in front of it.
    const std::uint64_t perBlock = (std::uint64_t{8} << full.clusterBits) >> full.refcountOrder;
    const std::uint64_t more = (perBlock + full.tableClusters * 3 / 2) << full.clusterBits;
    const std::uint64_t small = planOf(image);
    image.refcountTableClusters = full.tableClusters;
    EXPECT_GE(small, planOf(image) + more) << full.clusterBits << ' ' << full.refcountOrder;
  }
}

TEST(PlannedBytes, areTodaysLengthIfThatIsMore) {
  TestImage image;
  image.virtualBytes = 10 * kGiB;
  EXPECT_EQ(planOf(image, 5 * kGiB), planOf(image, 0));
  EXPECT_EQ(planOf(image, 20 * kGiB), 20 * kGiB);
}

TEST(PlannedBytes, areAddedToTodaysLength_whereItsContentMayStay) {
  const auto more = [](auto change) {
    TestImage image;
    image.virtualBytes = kGiB;
    const std::uint64_t plain = planOf(image);
    change(image);
    return planOf(image, 3 * kGiB) - plain;
  };
  EXPECT_EQ(more([](TestImage& image) { image.snapshots = 1; }), 3 * kGiB);
  EXPECT_EQ(more([](TestImage& image) { image.incompatible = 1; }), 3 * kGiB) << "dirty";
  EXPECT_EQ(more([](TestImage& image) { image.autoclear = 1; }), 3 * kGiB) << "bitmaps";
}

// The largest that a header can claim, in each size of clusters: no sum runs over.
TEST(PlannedBytes, areBounded) {
  for (std::uint32_t bits = 9; bits <= 21; ++bits) {
    for (const std::uint64_t incompatible : {0, 16}) {
      TestImage image;
      image.clusterBits = bits;
      image.refcountOrder = 6;
      image.incompatible = incompatible;
      const std::uint64_t perTable = (std::uint64_t{1} << bits) / (incompatible == 0 ? 8 : 16) << bits;
      image.virtualBytes = perTable * (std::uint64_t{4} << 20);
      const std::uint64_t planned = planOf(image);
      EXPECT_GT(planned, image.virtualBytes) << bits;
      EXPECT_LT(planned, image.virtualBytes + image.virtualBytes / 8) << bits;
      image.virtualBytes += 1;
      EXPECT_NE(refusal(image.header()), "taken") << bits;
    }
  }
}

}  // namespace
}  // namespace vmmhost::vm
