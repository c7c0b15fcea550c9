#include "worker-kvm/virtio/device.h"

#include <algorithm>

namespace vmmhost::kvm::virtio {

void readBytes(memory::ConstBytes config, std::uint64_t offset, std::span<std::uint8_t> data) noexcept {
  std::fill(data.begin(), data.end(), std::uint8_t{0});
  if (offset < config.size()) {
    const std::size_t count = std::min<std::size_t>(data.size(), config.size() - offset);
    std::copy_n(config.begin() + static_cast<std::ptrdiff_t>(offset), count, data.begin());
  }
}

}  // namespace vmmhost::kvm::virtio
