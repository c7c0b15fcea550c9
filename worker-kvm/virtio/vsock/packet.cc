#include "worker-kvm/virtio/vsock/packet.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace vmmhost::kvm::virtio::vsock {

namespace {

static_assert(std::endian::native == std::endian::little, "virtio 1.2, 1.4: fields are little-endian");

// Offsets in struct virtio_vsock_hdr.
constexpr std::size_t kSourceCid = 0;
constexpr std::size_t kDestinationCid = 8;
constexpr std::size_t kSourcePort = 16;
constexpr std::size_t kDestinationPort = 20;
constexpr std::size_t kLength = 24;
constexpr std::size_t kType = 28;
constexpr std::size_t kOperation = 30;
constexpr std::size_t kFlags = 32;
constexpr std::size_t kBufferAllocation = 36;
constexpr std::size_t kForwardCount = 40;

template <typename Bytes, typename Visit>
void eachField(Bytes& bytes, Visit visit) noexcept {
  visit(bytes.data() + kSourceCid, &Header::sourceCid);
  visit(bytes.data() + kDestinationCid, &Header::destinationCid);
  visit(bytes.data() + kSourcePort, &Header::sourcePort);
  visit(bytes.data() + kDestinationPort, &Header::destinationPort);
  visit(bytes.data() + kLength, &Header::length);
  visit(bytes.data() + kType, &Header::type);
  visit(bytes.data() + kOperation, &Header::operation);
  visit(bytes.data() + kFlags, &Header::flags);
  visit(bytes.data() + kBufferAllocation, &Header::bufferAllocation);
  visit(bytes.data() + kForwardCount, &Header::forwardCount);
}

}  // namespace

Header parseHeader(const HeaderBytes& bytes) noexcept {
  Header header;
  eachField(bytes, [&header](const std::uint8_t* at, auto field) {
    std::memcpy(&(header.*field), at, sizeof(header.*field));
  });
  return header;
}

HeaderBytes formatHeader(const Header& header) noexcept {
  HeaderBytes bytes;
  eachField(bytes,
            [&header](std::uint8_t* at, auto field) { std::memcpy(at, &(header.*field), sizeof(header.*field)); });
  return bytes;
}

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
