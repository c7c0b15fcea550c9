// For tests: a bzImage small enough to be spoilt field by field.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "worker-kvm/boot/bzimage.h"

namespace vmmhost::kvm::boot {

// One setup sector; a kernel of 1024 bytes whose 64-bit entry is followed by `code`.
class TestBzImage {
 public:
  static constexpr std::size_t kKernelOffset = 1024;
  static constexpr std::size_t kKernelBytes = 1024;

  explicit TestBzImage(const std::vector<std::uint8_t>& code = {}) : bytes_(kKernelOffset + kKernelBytes) {
    put(setup::kSetupSectors, std::uint8_t{1});
    put(setup::kSystemSize, std::uint32_t{kKernelBytes / 16});
    put(setup::kBootFlag, setup::kBootFlagValue);
    put(setup::kJump, std::uint16_t{0x6aeb});  // to 0x26c
    put(setup::kMagic, setup::kMagicValue);
    put(setup::kVersion, std::uint16_t{0x020f});
    put(setup::kLoadFlags, std::uint8_t{0xe1});  // what a loader is to clear is set
    put(setup::kInitrdAddressMax, std::uint32_t{0x7fffffff});
    put(setup::kKernelAlignment, std::uint32_t{0x200000});
    put(setup::kRelocatableKernel, std::uint8_t{1});
    put(setup::kExtraLoadFlags, std::uint16_t{1});
    put(setup::kCommandLineSize, std::uint32_t{2047});
    put(setup::kPreferredAddress, std::uint64_t{0x1000000});
    put(setup::kInitSize, std::uint32_t{0x100000});
    std::copy(code.begin(), code.end(), bytes_.begin() + kKernelOffset + kEntryOffset);
  }

  template <typename Value>
  TestBzImage& put(std::size_t offset, Value value) {
    std::memcpy(bytes_.data() + offset, &value, sizeof value);
    return *this;
  }
  TestBzImage& resize(std::size_t bytes) {
    bytes_.resize(bytes);
    return *this;
  }
  const std::vector<std::uint8_t>& bytes() const { return bytes_; }

 private:
  std::vector<std::uint8_t> bytes_;
};

}  // namespace vmmhost::kvm::boot
