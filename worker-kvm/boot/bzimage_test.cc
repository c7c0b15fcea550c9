#include "worker-kvm/boot/bzimage.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "tests/support/refusal.h"
#include "vmmhost/error.h"
#include "worker-kvm/boot/bytes_source.h"
#include "worker-kvm/boot/test_bzimage.h"

namespace vmmhost::kvm::boot {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

BzImage parse(const TestBzImage& file) {
  return parseBzImage(BytesSource(file.bytes()));
}

void expectRefusal(const TestBzImage& file, const std::string& text, ErrorCode code = ErrorCode::kInvalidArgument) {
  try {
    parse(file);
    ADD_FAILURE() << "was accepted, expected: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.message();
    EXPECT_EQ(error.message().find("boot.kernel: a bzImage "), 0U) << error.message();
    EXPECT_NE(error.message().find(text), std::string::npos) << error.message();
  }
}

TEST(ParseBzImage, soundFile_isRead) {
  const BzImage image = parse(TestBzImage());
  EXPECT_EQ(image.kernelOffset, 1024U);
  EXPECT_EQ(image.kernelBytes, 1024U);
  EXPECT_EQ(image.memoryBytes, kMiB);
  EXPECT_EQ(image.preferredAddress, 16 * kMiB);
  EXPECT_EQ(image.alignment, 2 * kMiB);
  EXPECT_EQ(image.initrdEnd, 0x80000000U);
  EXPECT_EQ(image.commandLineBytes, 2047U);
  EXPECT_EQ(image.setupHeader.size(), 0x26cU - 0x1f1U);
}

TEST(ParseBzImage, noSetupSectors_areFour) {
  TestBzImage file;
  file.put(setup::kSetupSectors, std::uint8_t{0}).resize(5 * 512 + 1024);
  EXPECT_EQ(parse(file).kernelOffset, 5 * 512U);
}

TEST(ParseBzImage, kernelThatStaysWhereItIs_hasNoAlignment) {
  TestBzImage file;
  file.put(setup::kRelocatableKernel, std::uint8_t{0}).put(setup::kKernelAlignment, std::uint32_t{3});
  EXPECT_FALSE(parse(file).alignment);
}

TEST(ParseBzImage, sizeInMemory_isAtLeastThatOfTheKernel) {
  EXPECT_EQ(parse(TestBzImage().put(setup::kInitSize, std::uint32_t{0})).memoryBytes, 1024U);
}

TEST(ParseBzImage, foreignOrOldFile_isRefusedByWhatIsWrong) {
  expectRefusal(TestBzImage().put(setup::kMagic, std::uint32_t{0}), "without the magic number");
  expectRefusal(TestBzImage().put(setup::kBootFlag, std::uint16_t{0}), "without the boot flag");
  expectRefusal(TestBzImage().put(setup::kVersion, std::uint16_t{0x020b}), "boot protocol 2.11",
                ErrorCode::kUnsupported);
  expectRefusal(TestBzImage().put(setup::kExtraLoadFlags, std::uint16_t{0xfffe}), "64-bit entry",
                ErrorCode::kUnsupported);
  expectRefusal(TestBzImage().put(setup::kLoadFlags, std::uint8_t{0}), "below 1 MiB", ErrorCode::kUnsupported);
}

TEST(ParseBzImage, hostileSizes_areRefused) {
  expectRefusal(TestBzImage().put(setup::kJump, std::uint16_t{0x00eb}), "header ends at 0x202");
  expectRefusal(TestBzImage().put(setup::kJump, std::uint16_t{0x8feb}), "header ends at 0x291");
  expectRefusal(TestBzImage().put(setup::kSystemSize, std::uint32_t{0}), "0 bytes of code");
  expectRefusal(TestBzImage().put(setup::kSystemSize, std::uint32_t{0x20}), "512 bytes of code");
  expectRefusal(TestBzImage().put(setup::kSystemSize, std::uint32_t{0x41}), "is cut off: its header says");
  expectRefusal(TestBzImage().put(setup::kSystemSize, UINT32_MAX), "is cut off: its header says");
  expectRefusal(TestBzImage().put(setup::kSetupSectors, std::uint8_t{255}), "is cut off: its header says");
  expectRefusal(TestBzImage().put(setup::kKernelAlignment, std::uint32_t{0}), "no power of two");
  expectRefusal(TestBzImage().put(setup::kKernelAlignment, std::uint32_t{0x300000}), "no power of two");
}

TEST(ParseBzImage, everyShorterFile_isRefused) {
  const std::size_t whole = TestBzImage().bytes().size();
  for (std::size_t size = 0; size < whole; ++size) {
    EXPECT_THROW(parse(TestBzImage().resize(size)), Error) << size;
  }
  EXPECT_NO_THROW(parse(TestBzImage().resize(whole + 1)));  // a signature follows
}

TEST(LooksLikeBzImage, onlyTheMagicNumberCounts) {
  EXPECT_TRUE(looksLikeBzImage(BytesSource(TestBzImage().bytes())));
  EXPECT_TRUE(looksLikeBzImage(BytesSource(TestBzImage().resize(0x206).bytes())));
  EXPECT_FALSE(looksLikeBzImage(BytesSource(TestBzImage().resize(0x205).bytes())));
  EXPECT_FALSE(looksLikeBzImage(BytesSource(TestBzImage().put(setup::kMagic, std::uint8_t{0}).bytes())));
}

TEST(PlaceBzImage, roomAtThePreferredAddress_isTaken) {
  const BzImage image = parse(TestBzImage());
  EXPECT_EQ(placeBzImage(image, 17 * kMiB), (memory::Range{16 * kMiB, kMiB}));
}

TEST(PlaceBzImage, lessMemory_movesItDownIfItMayBeMoved) {
  BzImage image = parse(TestBzImage());
  EXPECT_EQ(placeBzImage(image, 17 * kMiB - 1), (memory::Range{2 * kMiB, kMiB}));
  EXPECT_EQ(placeBzImage(image, 3 * kMiB), (memory::Range{2 * kMiB, kMiB}));
  tests::expectRefusal("at 0x1000000 or lower does not fit into the 2 MiB", [&] { placeBzImage(image, 3 * kMiB - 1); });
  image.alignment.reset();
  tests::expectRefusal("at 0x1000000 does not fit into the 16 MiB", [&] { placeBzImage(image, 17 * kMiB - 1); });
}

TEST(PlaceBzImage, hostileAddresses_areNeverTaken) {
  for (const std::uint64_t address : {std::uint64_t{0}, kMiB - 1, 64 * kMiB, UINT64_MAX, UINT64_MAX - kMiB + 1}) {
    const BzImage image = parse(TestBzImage().put(setup::kPreferredAddress, address));
    EXPECT_EQ(placeBzImage(image, 64 * kMiB), (memory::Range{2 * kMiB, kMiB})) << address;
  }
  const BzImage large = parse(TestBzImage().put(setup::kInitSize, UINT32_MAX));
  tests::expectRefusal("that needs 4294967295 bytes", [&] { placeBzImage(large, 64 * kMiB); });
  const BzImage coarse = parse(TestBzImage()
                                   .put(setup::kPreferredAddress, std::uint64_t{0})
                                   .put(setup::kKernelAlignment, std::uint32_t{0x80000000}));
  tests::expectRefusal("does not fit into the 64 MiB", [&] { placeBzImage(coarse, 64 * kMiB); });
}

// Whatever the bytes are, the parser answers with an image within its own rules or an Error.
TEST(ParseBzImage, mutatedFiles_neverBreakTheRules) {
  std::minstd_rand random(7);
  int accepted = 0;
  for (int round = 0; round < 20'000; ++round) {
    TestBzImage file;
    for (int change = 0; change < 3; ++change) {
      file.put(0x1f1 + random() % (0x290 - 0x1f1), static_cast<std::uint8_t>(random()));
    }
    try {
      const BzImage image = parse(file);
      ++accepted;
      ASSERT_LE(image.kernelOffset + image.kernelBytes, file.bytes().size());
      ASSERT_GE(image.memoryBytes, image.kernelBytes);
      ASSERT_GT(image.kernelBytes, kEntryOffset);
      ASSERT_LE(image.setupHeader.size(), setup::kMaxBytes);
      const memory::Range place = placeBzImage(image, 256 * kMiB);
      ASSERT_GE(place.start, kMiB);
      ASSERT_LE(place.start, 256 * kMiB);
      ASSERT_LE(place.bytes, 256 * kMiB - place.start);
    } catch (const Error&) {
    }
  }
  EXPECT_GT(accepted, 1000);
}

}  // namespace
}  // namespace vmmhost::kvm::boot
