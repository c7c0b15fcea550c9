#include "worker-kvm/boot/bzimage.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <string>

#include "vmmhost/error.h"
#include "worker-kvm/arch/x86_64/layout.h"

namespace vmmhost::kvm::boot {

namespace {

constexpr std::uint64_t kSectorBytes = 512;
constexpr std::uint8_t kDefaultSetupSectors = 4;  // what 0 stands for
constexpr std::uint64_t kParagraphBytes = 16;     // unit of syssize
constexpr std::uint8_t kLoadedHigh = 1U << 0;     // loadflags: the kernel is loaded at 1 MiB or above
constexpr std::uint16_t kKernel64 = 1U << 0;      // xloadflags: XLF_KERNEL_64

[[noreturn]] void refuse(std::string message, ErrorCode code = ErrorCode::kInvalidArgument, std::string hint = {}) {
  throw Error(code, "boot.kernel: a bzImage " + std::move(message), std::move(hint));
}

std::string hexadecimal(std::uint64_t value) {
  std::array<char, 24> text;
  std::snprintf(text.data(), text.size(), "0x%" PRIx64, value);
  return text.data();
}

// The beginning of the file as far as a header may go.
class Header {
 public:
  explicit Header(const ByteSource& file) : bytes_(file.read(0, all_)) {}

  // All fields that are asked for lie before this.
  bool has(std::size_t end) const { return end <= bytes_; }
  template <typename Value>
  Value get(std::size_t offset) const {
    Value value;
    std::memcpy(&value, all_.data() + offset, sizeof value);  // little-endian, as this machine
    return value;
  }
  std::vector<std::uint8_t> part(std::size_t start, std::size_t end) const {
    return {all_.begin() + static_cast<std::ptrdiff_t>(start), all_.begin() + static_cast<std::ptrdiff_t>(end)};
  }

 private:
  std::array<std::uint8_t, setup::kLimit> all_{};
  std::size_t bytes_;
};

// boot.rst, "The Linux/x86 Boot Protocol": the header ends where the jump at 0x200 goes to.
std::size_t headerEnd(const Header& header) {
  const std::size_t end = setup::kMagic + header.get<std::uint8_t>(setup::kJump + 1);
  if (end < setup::kHandoverOffset + 4 || end > setup::kLimit) {
    refuse("whose header ends at " + hexadecimal(end) + ", not within " + hexadecimal(setup::kHandoverOffset + 4) +
           " to " + hexadecimal(setup::kLimit));
  }
  if (!header.has(end)) {
    refuse("that is cut off within its header");
  }
  return end;
}

void checkProtocol(const Header& header) {
  if (header.get<std::uint16_t>(setup::kBootFlag) != setup::kBootFlagValue) {
    refuse("without the boot flag 0xaa55 at 0x1fe");
  }
  const auto version = header.get<std::uint16_t>(setup::kVersion);
  if (version < setup::kMinVersion) {
    refuse("of boot protocol " + std::to_string(version >> 8) + "." + std::to_string(version & 0xff) +
               ", and 2.12 is the first that is supported",
           ErrorCode::kUnsupported, "Linux has it from 3.8 on");
  }
  if ((header.get<std::uint16_t>(setup::kExtraLoadFlags) & kKernel64) == 0) {
    refuse("without a 64-bit entry point", ErrorCode::kUnsupported, "take a kernel built for x86-64");
  }
  if ((header.get<std::uint8_t>(setup::kLoadFlags) & kLoadedHigh) == 0) {
    refuse("that is to be loaded below 1 MiB", ErrorCode::kUnsupported);
  }
}

bool isPresent(const ByteSource& file, std::uint64_t offset) {
  std::array<std::uint8_t, 1> byte{};
  return file.read(offset, byte) == byte.size();
}

}  // namespace

bool looksLikeBzImage(const ByteSource& file) {
  const Header header(file);
  return header.has(setup::kMagic + 4) && header.get<std::uint32_t>(setup::kMagic) == setup::kMagicValue;
}

BzImage parseBzImage(const ByteSource& file) {
  const Header header(file);
  if (!header.has(setup::kMagic + 4) || header.get<std::uint32_t>(setup::kMagic) != setup::kMagicValue) {
    refuse("without the magic number HdrS at 0x202");
  }
  if (!header.has(setup::kHandoverOffset + 4)) {
    refuse("that is cut off within its header");
  }
  checkProtocol(header);

  BzImage image;
  image.setupHeader = header.part(setup::kStart, headerEnd(header));
  const auto setupSectors = header.get<std::uint8_t>(setup::kSetupSectors);
  image.kernelOffset = (std::uint64_t{setupSectors == 0 ? kDefaultSetupSectors : setupSectors} + 1) * kSectorBytes;
  image.kernelBytes = header.get<std::uint32_t>(setup::kSystemSize) * kParagraphBytes;
  if (image.kernelBytes <= kEntryOffset) {
    refuse("with " + std::to_string(image.kernelBytes) + " bytes of code, which end before its entry point");
  }
  if (!isPresent(file, image.kernelOffset + image.kernelBytes - 1)) {
    refuse("that is cut off: its header says that it has " + std::to_string(image.kernelOffset + image.kernelBytes) +
           " bytes");
  }
  image.memoryBytes = std::max<std::uint64_t>(header.get<std::uint32_t>(setup::kInitSize), image.kernelBytes);
  image.preferredAddress = header.get<std::uint64_t>(setup::kPreferredAddress);
  if (header.get<std::uint8_t>(setup::kRelocatableKernel) != 0) {
    image.alignment = header.get<std::uint32_t>(setup::kKernelAlignment);
    if (!std::has_single_bit(*image.alignment)) {
      refuse("with an alignment of " + hexadecimal(*image.alignment) + ", which is no power of two");
    }
  }
  image.initrdEnd = std::uint64_t{header.get<std::uint32_t>(setup::kInitrdAddressMax)} + 1;
  image.commandLineBytes = header.get<std::uint32_t>(setup::kCommandLineSize);
  return image;
}

memory::Range placeBzImage(const BzImage& image, std::uint64_t memoryEnd) {
  const auto fits = [&](std::uint64_t address) {
    return address >= arch::kHighMemoryStart && address < memoryEnd && image.memoryBytes <= memoryEnd - address;
  };
  if (fits(image.preferredAddress)) {
    return {image.preferredAddress, image.memoryBytes};
  }
  if (image.alignment) {
    const std::uint64_t lowest = (arch::kHighMemoryStart + *image.alignment - 1) & ~(*image.alignment - 1);
    if (fits(lowest)) {
      return {lowest, image.memoryBytes};
    }
  }
  refuse("that needs " + std::to_string(image.memoryBytes) + " bytes at " + hexadecimal(image.preferredAddress) +
             (image.alignment ? " or lower" : "") + " does not fit into the " + std::to_string(memoryEnd >> 20) +
             " MiB of memory there",
         ErrorCode::kInvalidArgument, "give the VM more memory (memory.size)");
}

}  // namespace vmmhost::kvm::boot
