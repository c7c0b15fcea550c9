// bzImage kernels (vmlinuz, as distributions ship them): a strict parser over the setup header, apart from any loading.
// Source: Linux's Documentation/arch/x86/boot.rst.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "worker-kvm/boot/file.h"
#include "worker-kvm/memory/guest_memory.h"

namespace vmmhost::kvm::boot {

// Offsets of the setup header's fields in the file and in the zero page alike (boot.rst, "The Real-Mode Kernel
// Header").
namespace setup {
inline constexpr std::size_t kStart = 0x1f1;
inline constexpr std::size_t kSetupSectors = 0x1f1;
inline constexpr std::size_t kSystemSize = 0x1f4;
inline constexpr std::size_t kVideoMode = 0x1fa;
inline constexpr std::size_t kBootFlag = 0x1fe;
inline constexpr std::size_t kJump = 0x200;
inline constexpr std::size_t kMagic = 0x202;
inline constexpr std::size_t kVersion = 0x206;
inline constexpr std::size_t kTypeOfLoader = 0x210;
inline constexpr std::size_t kLoadFlags = 0x211;
inline constexpr std::size_t kRamdiskImage = 0x218;
inline constexpr std::size_t kRamdiskSize = 0x21c;
inline constexpr std::size_t kCommandLinePointer = 0x228;
inline constexpr std::size_t kInitrdAddressMax = 0x22c;
inline constexpr std::size_t kKernelAlignment = 0x230;
inline constexpr std::size_t kRelocatableKernel = 0x234;
inline constexpr std::size_t kExtraLoadFlags = 0x236;
inline constexpr std::size_t kCommandLineSize = 0x238;
inline constexpr std::size_t kSetupData = 0x250;
inline constexpr std::size_t kPreferredAddress = 0x258;
inline constexpr std::size_t kInitSize = 0x260;
inline constexpr std::size_t kHandoverOffset = 0x264;
// Where the zero page has something else (edd_mbr_sig_buffer, zero-page.rst).
inline constexpr std::size_t kLimit = 0x290;
inline constexpr std::size_t kMaxBytes = kLimit - kStart;

inline constexpr std::uint16_t kBootFlagValue = 0xaa55;
inline constexpr std::uint32_t kMagicValue = 0x53726448;  // "HdrS"
inline constexpr std::uint16_t kMinVersion = 0x020c;      // 2.12, Linux 3.8: xloadflags, the 64-bit entry
}  // namespace setup

struct BzImage {
  // The compressed kernel with its decompressor: loaded as it is.
  std::uint64_t kernelOffset = 0;
  std::uint64_t kernelBytes = 0;  // not 0
  // Memory that it needs from its load address on, at least kernelBytes.
  std::uint64_t memoryBytes = 0;
  std::uint64_t preferredAddress = 0;
  // Where else it may be loaded: at multiples of this, a power of two. Nothing: at preferredAddress only.
  std::optional<std::uint64_t> alignment;
  std::uint64_t initrdEnd = 0;            // an initrd ends there or before
  std::uint64_t commandLineBytes = 0;     // at most, without the zero
  std::vector<std::uint8_t> setupHeader;  // from setup::kStart on; at most setup::kMaxBytes
};

// 512 bytes into the compressed kernel (boot.rst, "64-bit Boot Protocol").
inline constexpr std::uint64_t kEntryOffset = 0x200;

// "HdrS" at its place: the file wants to be a bzImage.
bool looksLikeBzImage(const ByteSource& file);

// Throws kInvalidArgument that names what is wrong, kUnsupported for a kernel without a 64-bit entry or of a protocol
// before 2.12.
BzImage parseBzImage(const ByteSource& file);

// Where `image` is loaded in memory [0, memoryEnd): its preferred address, or the lowest above 1 MiB where that does
// not fit and it may be elsewhere. Throws kInvalidArgument if it fits nowhere.
memory::Range placeBzImage(const BzImage& image, std::uint64_t memoryEnd);

}  // namespace vmmhost::kvm::boot
