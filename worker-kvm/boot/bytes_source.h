// For tests: a file that is bytes in memory.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "worker-kvm/boot/file.h"

namespace vmmhost::kvm::boot {

class BytesSource final : public ByteSource {
 public:
  explicit BytesSource(std::vector<std::uint8_t> bytes) : bytes_(std::move(bytes)) {}
  std::size_t read(std::uint64_t offset, memory::Bytes target) const override {
    if (offset >= bytes_.size()) {
      return 0;
    }
    const std::size_t count = std::min<std::size_t>(target.size(), bytes_.size() - offset);
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), count, target.begin());
    return count;
  }

 private:
  std::vector<std::uint8_t> bytes_;
};

}  // namespace vmmhost::kvm::boot
