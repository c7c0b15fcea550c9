#include "worker-kvm/boot/load.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "vmmhost/error.h"
#include "worker-kvm/arch/x86_64/layout.h"
#include "worker-kvm/boot/test_bzimage.h"

namespace vmmhost::kvm::boot {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

// A 64-bit kernel of one segment at 1 MiB: 16 bytes of file, 4096 of memory. Hand-made: the parser has tests of its
// own.
std::vector<std::uint8_t> kernelBytes() {
  std::vector<std::uint64_t> words = {0x00010102464c457f,
                                      0,  // ELF, 64 bits, little-endian
                                      0x00000001003e0002,
                                      0,  // executable, x86-64
                                      64,
                                      0,
                                      0x0038004000000000,
                                      2,
                                      0x0000000700000001,
                                      200,
                                      0x100000,
                                      0x100000,
                                      16,
                                      4096,
                                      4096,  // PT_LOAD at 200
                                      0x0000000400000004,
                                      176,
                                      0,
                                      0,
                                      24,
                                      24,
                                      4,  // PT_NOTE at 176
                                      0x0000000800000004,
                                      0x006e655800000012,
                                      0x100000,  // 18, "Xen", entry
                                      0x1111111111111111,
                                      0x2222222222222222};
  std::vector<std::uint8_t> bytes(words.size() * 8);
  std::memcpy(bytes.data(), words.data(), bytes.size());
  return bytes;
}

std::unique_ptr<FileSource> file(const std::vector<std::uint8_t>& bytes, std::string name) {
  Fd memfd(::memfd_create("test", MFD_CLOEXEC));
  EXPECT_EQ(::write(memfd.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  return std::make_unique<FileSource>(std::move(memfd), std::move(name));
}

template <typename Value>
Value read(const memory::GuestMemory& memory, std::uint64_t address) {
  Value value;
  std::memcpy(&value, memory.require(address, sizeof value, "test").data(), sizeof value);
  return value;
}

class LoadTest : public testing::Test {
 protected:
  LoadTest() { files_.kernel = file(kernelBytes(), "kernel"); }
  std::string refusal() {
    try {
      load(files_, firmware_, memory_, true);
    } catch (const Error& error) {
      field_ = error.field();
      return error.message();
    }
    return "accepted";
  }

  std::string field_;  // of the last refusal
  memory::GuestMemory memory_{arch::memoryRanges(4 * kMiB)};
  BootFiles files_;
  Firmware firmware_;
};

TEST_F(LoadTest, kernelAndStartInfo_lieWhereTheyShould) {
  files_.commandLine = "one two";
  EXPECT_EQ(load(files_, firmware_, memory_, true), (arch::EntryState{arch::EntryMode::kPvh, 0x100000}));
  EXPECT_EQ(read<std::uint64_t>(memory_, 0x100008), 0x2222222222222222U);
  EXPECT_EQ(read<std::uint64_t>(memory_, 0x100010), 0U);
  EXPECT_EQ(read<std::uint32_t>(memory_, arch::kStartInfo), 0x336ec578U);
  EXPECT_EQ(read<std::uint32_t>(memory_, arch::kStartInfo + 12), 0U);  // modules
  const auto commandLine = read<std::uint64_t>(memory_, arch::kStartInfo + 24);
  EXPECT_STREQ(reinterpret_cast<const char*>(memory_.require(commandLine, 8, "test").data()), "one two");
  EXPECT_EQ(read<std::uint32_t>(memory_, arch::kStartInfo + 48), 4U);  // memory map entries
}

TEST_F(LoadTest, initrd_goesToTheTopPageAligned) {
  files_.initrd = file(std::vector<std::uint8_t>(5000, 7), "initrd");
  load(files_, firmware_, memory_, true);
  EXPECT_EQ(read<std::uint32_t>(memory_, arch::kStartInfo + 12), 1U);
  EXPECT_EQ(read<std::uint64_t>(memory_, arch::kModuleList), 4 * kMiB - 8192);
  EXPECT_EQ(read<std::uint64_t>(memory_, arch::kModuleList + 8), 5000U);
  EXPECT_EQ(read<std::uint8_t>(memory_, 4 * kMiB - 8192 + 4999), 7);
}

TEST_F(LoadTest, secondLoad_clearsWhatTheKernelWantsZero) {
  load(files_, firmware_, memory_, true);
  const std::array<std::uint8_t, 1> dirt = {1};
  memory_.write(0x100ffe, dirt, "dirt");
  memory_.write(0x100003, dirt, "dirt");
  load(files_, firmware_, memory_, false);
  EXPECT_EQ(read<std::uint8_t>(memory_, 0x100ffe), 0);
  EXPECT_EQ(read<std::uint8_t>(memory_, 0x100003), 0x11);
}

TEST_F(LoadTest, initrdThatDoesNotFit_isRefused) {
  files_.initrd = file(std::vector<std::uint8_t>(4 * kMiB, 7), "initrd");
  EXPECT_NE(refusal().find("boot.initrd: 4194304 bytes do not fit"), std::string::npos) << refusal();
  EXPECT_EQ(field_, "boot.initrd");
  files_.initrd = file(std::vector<std::uint8_t>(3 * kMiB - 100, 7), "initrd");
  EXPECT_NE(refusal().find("overlap the kernel"), std::string::npos) << refusal();
}

TEST_F(LoadTest, truncatedKernel_isRefused) {
  std::vector<std::uint8_t> bytes = kernelBytes();
  bytes.pop_back();
  files_.kernel = file(bytes, "kernel");
  EXPECT_NE(refusal().find("segment 0 goes beyond the end of the file"), std::string::npos) << refusal();
  EXPECT_EQ(field_, "kernel") << "the name of the file's source";
}

TEST_F(LoadTest, segmentInTheDeviceGap_isRefusedAsSuch) {
  std::vector<std::uint8_t> bytes = kernelBytes();
  const std::uint64_t place = 0xfee00000;
  std::memcpy(bytes.data() + 11 * 8, &place, sizeof place);  // p_paddr
  std::memcpy(bytes.data() + 24 * 8, &place, sizeof place);  // entry
  files_.kernel = file(bytes, "kernel");
  EXPECT_NE(refusal().find("segment 0 reaches into the gap"), std::string::npos) << refusal();
  EXPECT_EQ(field_, "boot.kernel");
}

TEST_F(LoadTest, commandLine_hasItsLimit) {
  files_.commandLine = std::string(2047, 'x');
  EXPECT_EQ(refusal(), "accepted");
  files_.commandLine += "x";
  EXPECT_NE(refusal().find("2048 bytes"), std::string::npos) << refusal();
  EXPECT_EQ(field_, "boot.cmdline");
}

TEST_F(LoadTest, firmwareTables_areWrittenAndThePointerIsTold) {
  load(files_, firmware_, memory_, true);
  EXPECT_EQ(read<std::uint64_t>(memory_, arch::kStartInfo + 32), 0U);
  firmware_.acpi = {1, 2, 3};
  firmware_.smbios = {4, 5, 6};
  load(files_, firmware_, memory_, true);
  EXPECT_EQ(read<std::uint64_t>(memory_, arch::kStartInfo + 32), arch::kRsdp);
  EXPECT_EQ(read<std::uint8_t>(memory_, arch::kAcpiStart + 2), 3);
  EXPECT_EQ(read<std::uint8_t>(memory_, arch::kSmbiosStart + 2), 6);
  EXPECT_EQ(read<std::uint8_t>(memory_, arch::kResetVector + 1), arch::kKeyboardReset);
}

TEST_F(LoadTest, elfWithANote_isEnteredAsItIsAskedFor) {
  std::vector<std::uint8_t> bytes = kernelBytes();
  const std::uint64_t entry = 0x100008;
  std::memcpy(bytes.data() + 24, &entry, sizeof entry);  // e_entry
  files_.kernel = file(bytes, "kernel");
  EXPECT_EQ(load(files_, firmware_, memory_, true), (arch::EntryState{arch::EntryMode::kPvh, 0x100000}));
  files_.elfProtocol = ElfProtocol::kLinux64;
  EXPECT_EQ(load(files_, firmware_, memory_, true), (arch::EntryState{arch::EntryMode::kLinux64, 0x100008}));
}

TEST_F(LoadTest, elfWithoutLinuxEntry_cannotBeEnteredSo) {
  files_.elfProtocol = ElfProtocol::kLinux64;
  EXPECT_NE(refusal().find("only a PVH entry point"), std::string::npos) << refusal();
}

TEST_F(LoadTest, elfWithoutANote_isEnteredInLongMode) {
  std::vector<std::uint8_t> bytes = kernelBytes();
  const std::uint64_t entry = 0x100008;
  std::memcpy(bytes.data() + 24, &entry, sizeof entry);
  bytes[176 + 8] = 0;  // the note's type
  files_.kernel = file(bytes, "kernel");
  firmware_.acpi = {1};
  EXPECT_EQ(load(files_, firmware_, memory_, true), (arch::EntryState{arch::EntryMode::kLinux64, 0x100008}));
  EXPECT_EQ(read<std::uint64_t>(memory_, arch::kZeroPage + 0x070), arch::kRsdp);
  EXPECT_EQ(read<std::uint8_t>(memory_, arch::kZeroPage + 0x1e8), 4);
  EXPECT_EQ(read<std::uint64_t>(memory_, arch::kPageMapLevel4), 0xa003U);
}

TEST_F(LoadTest, bzImage_isEnteredBehindItsFirst512Bytes) {
  files_.kernel = file(TestBzImage({0xaa, 0xbb}).bytes(), "kernel");
  files_.commandLine = "one";
  EXPECT_EQ(load(files_, firmware_, memory_, true), (arch::EntryState{arch::EntryMode::kLinux64, 0x200200}));
  EXPECT_EQ(read<std::uint16_t>(memory_, 0x200200), 0xbbaa);
  EXPECT_EQ(read<std::uint32_t>(memory_, arch::kZeroPage + 0x238), 3U);
}

TEST_F(LoadTest, initrdOfBzImage_isClearOfWhatTheKernelNeedsAndBelowItsLimit) {
  files_.initrd = file(std::vector<std::uint8_t>(0x1000, 7), "initrd");
  files_.kernel = file(TestBzImage().put(setup::kInitrdAddressMax, std::uint32_t{0x3fefff}).bytes(), "kernel");
  load(files_, firmware_, memory_, true);
  EXPECT_EQ(read<std::uint32_t>(memory_, arch::kZeroPage + 0x218), 0x3fe000U);
  files_.kernel = file(TestBzImage().put(setup::kInitrdAddressMax, std::uint32_t{0x2fffff}).bytes(), "kernel");
  EXPECT_NE(refusal().find("overlap the kernel"), std::string::npos) << refusal();
  files_.kernel = file(TestBzImage().put(setup::kInitrdAddressMax, std::uint32_t{0xfffff}).bytes(), "kernel");
  EXPECT_NE(refusal().find("do not fit into 1 MiB"), std::string::npos) << refusal();
}

TEST_F(LoadTest, commandLineBeyondTheKernelsOwnLimit_isRefused) {
  files_.kernel = file(TestBzImage().put(setup::kCommandLineSize, std::uint32_t{255}).bytes(), "kernel");
  files_.commandLine = std::string(255, 'x');
  EXPECT_EQ(refusal(), "accepted");
  files_.commandLine += "x";
  EXPECT_NE(refusal().find("256 bytes, and the kernel takes at most 255"), std::string::npos) << refusal();
}

TEST_F(LoadTest, fileOfAnotherKind_isRefused) {
  files_.kernel = file(std::vector<std::uint8_t>(4096, 'x'), "kernel");
  EXPECT_NE(refusal().find("boot.kernel: neither an ELF file (vmlinux) nor a bzImage"), std::string::npos) << refusal();
  files_.kernel = file({}, "kernel");
  EXPECT_NE(refusal().find("boot.kernel: neither"), std::string::npos) << refusal();
}

}  // namespace
}  // namespace vmmhost::kvm::boot
