// Packets of a virtio socket device: the header, and what to make of one that a guest sent. Pure functions.
// Source: virtio 1.2, 5.10.6.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace vmmhost::kvm::virtio::vsock {

inline constexpr std::size_t kHeaderBytes = 44;  // struct virtio_vsock_hdr
inline constexpr std::uint64_t kHostCid = 2;     // 5.10.4

// 5.10.6.2: the one socket type that is served.
inline constexpr std::uint16_t kTypeStream = 1;

enum class Operation : std::uint16_t {
  kInvalid = 0,
  kRequest = 1,
  kResponse = 2,
  kReset = 3,
  kShutdown = 4,
  kReadWrite = 5,
  kCreditUpdate = 6,
  kCreditRequest = 7,
};

// 5.10.6.5: flags of kShutdown, from the side of its sender.
inline constexpr std::uint32_t kShutdownReceive = 1 << 0;
inline constexpr std::uint32_t kShutdownSend = 1 << 1;
inline constexpr std::uint32_t kShutdownBoth = kShutdownReceive | kShutdownSend;

// As struct virtio_vsock_hdr has it, field by field; kHeaderBytes of it are the header.
struct Header {
  std::uint64_t sourceCid = 0;
  std::uint64_t destinationCid = 0;
  std::uint32_t sourcePort = 0;
  std::uint32_t destinationPort = 0;
  std::uint32_t length = 0;  // of the payload
  std::uint16_t type = kTypeStream;
  Operation operation = Operation::kInvalid;  // of a guest: any number
  std::uint32_t flags = 0;
  std::uint32_t bufferAllocation = 0;
  std::uint32_t forwardCount = 0;

  bool operator==(const Header&) const = default;
};

static_assert(std::endian::native == std::endian::little, "virtio 1.2, 1.4: fields are little-endian");
static_assert(offsetof(Header, destinationCid) == 8 && offsetof(Header, sourcePort) == 16 &&
              offsetof(Header, destinationPort) == 20 && offsetof(Header, length) == 24 &&
              offsetof(Header, type) == 28 && offsetof(Header, operation) == 30 && offsetof(Header, flags) == 32 &&
              offsetof(Header, bufferAllocation) == 36 && offsetof(Header, forwardCount) == 40 &&
              sizeof(Header) >= kHeaderBytes);

using HeaderBytes = std::array<std::uint8_t, kHeaderBytes>;
inline Header parseHeader(const HeaderBytes& bytes) noexcept {
  Header header;
  std::memcpy(&header, bytes.data(), bytes.size());
  return header;
}
inline HeaderBytes formatHeader(const Header& header) noexcept {
  HeaderBytes bytes;
  std::memcpy(bytes.data(), &header, bytes.size());
  return bytes;
}

// What becomes of a packet of the guest before any connection is looked for.
enum class Verdict : std::uint8_t {
  kAccept,
  kDrop,   // not between this guest and its host: nobody could be answered
  kReset,  // nonsense: a kind of socket or an operation that there is not, or a payload that is not there
};
// `payloadBytes`: what the driver has put behind the header; it may be more than the payload (5.10.6).
[[gnu::hot]] Verdict judge(const Header& header, std::uint64_t payloadBytes, std::uint64_t guestCid) noexcept;

// Appends to `part` the pieces of `whole` from byte `offset` on, `length` bytes or as many as there are. How many.
std::uint64_t slice(std::span<const iovec> whole, std::uint64_t offset, std::uint64_t length, std::vector<iovec>& part);
// The first of these pieces alone. Nothing if there is none.
inline iovec firstOfSlice(std::span<const iovec> whole, std::uint64_t offset, std::uint64_t length) noexcept {
  for (const iovec& piece : whole) {
    if (offset < piece.iov_len) {
      return {static_cast<std::uint8_t*>(piece.iov_base) + offset,
              std::min<std::uint64_t>(piece.iov_len - offset, length)};
    }
    offset -= piece.iov_len;
  }
  return {};
}

}  // namespace vmmhost::kvm::virtio::vsock
