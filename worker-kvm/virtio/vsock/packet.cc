#include "worker-kvm/virtio/vsock/packet.h"

#include <algorithm>

namespace vmmhost::kvm::virtio::vsock {

Verdict judge(const Header& header, std::uint64_t payloadBytes, std::uint64_t guestCid) noexcept {
  if (header.sourceCid != guestCid || header.destinationCid != kHostCid) {
    return Verdict::kDrop;
  }
  // 5.10.6.4.1: a reset answers a type that is not known.
  if (header.type != kTypeStream) {
    return Verdict::kReset;
  }
  switch (header.operation) {
    case Operation::kReadWrite:
      return header.length <= payloadBytes ? Verdict::kAccept : Verdict::kReset;
    case Operation::kRequest:
    case Operation::kResponse:
    case Operation::kReset:
    case Operation::kShutdown:
    case Operation::kCreditUpdate:
    case Operation::kCreditRequest:
      return Verdict::kAccept;
    case Operation::kInvalid:
      break;
  }
  return Verdict::kReset;
}

std::uint64_t slice(std::span<const iovec> whole, std::uint64_t offset, std::uint64_t length,
                    std::vector<iovec>& part) {
  std::uint64_t taken = 0;
  for (const iovec& piece : whole) {
    if (taken == length) {
      break;
    }
    if (offset >= piece.iov_len) {
      offset -= piece.iov_len;
      continue;
    }
    const std::uint64_t count = std::min<std::uint64_t>(piece.iov_len - offset, length - taken);
    part.push_back({static_cast<std::uint8_t*>(piece.iov_base) + offset, count});
    taken += count;
    offset = 0;
  }
  return taken;
}

}  // namespace vmmhost::kvm::virtio::vsock
