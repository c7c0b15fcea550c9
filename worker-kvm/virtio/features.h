// Feature bits that are no device's own. Source: virtio 1.2, 6 (reserved feature bits).
#pragma once

#include <cstdint>

namespace vmmhost::kvm::virtio {

constexpr std::uint64_t featureBit(unsigned number) {
  return std::uint64_t{1} << number;
}

// Of the queues: devices offer them.
inline constexpr std::uint64_t kIndirectDesc = featureBit(28);  // VIRTIO_F_INDIRECT_DESC
inline constexpr std::uint64_t kEventIdx = featureBit(29);      // VIRTIO_F_EVENT_IDX
// Of the transport.
inline constexpr std::uint64_t kVersion1 = featureBit(32);  // VIRTIO_F_VERSION_1

}  // namespace vmmhost::kvm::virtio
