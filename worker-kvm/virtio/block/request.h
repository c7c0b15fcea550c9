// What a chain of the request queue asks for: pure functions over guest memory, apart from any I/O.
// Source: virtio 1.2, 5.2.6.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "worker-kvm/virtio/block/protocol.h"
#include "worker-kvm/virtio/queue.h"

namespace vmmhost::kvm::virtio::block {

// Of config space: max_discard_sectors and max_discard_seg, the same for write zeroes. A large write of zeroes is cut
// into steps, but is one request.
inline constexpr std::uint32_t kMaxDiscardSectors = 1 << 22;
inline constexpr std::uint32_t kMaxWriteZeroesSectors = 1 << 21;
inline constexpr std::size_t kMaxDiscardRanges = 16;
inline constexpr std::size_t kMaxWriteZeroesRanges = 1;

// What requests are held against.
struct Shape {
  std::uint64_t sectors = 0;
  bool readOnly = false;
  bool canDiscard = false;      // VIRTIO_BLK_F_DISCARD was agreed
  bool canWriteZeroes = false;  // VIRTIO_BLK_F_WRITE_ZEROES was agreed
};

enum class Action : std::uint8_t {
  kAnswer,  // nothing but `answer`
  kRead,
  kWrite,
  kFlush,
  kGetId,
  kDiscard,
  kWriteZeroes,
};

struct Request {
  Action action = Action::kAnswer;
  Status answer = Status::kIoErr;
  std::uint8_t* status = nullptr;  // in guest memory: the last byte that the device may write
  // Of the data: where in the file, and how much of the driver's buffer besides header and status byte.
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  std::uint64_t room = 0;  // bytes that the device may write besides the status byte
};

// Reads the header once. Nothing if there is no room for a status byte: then no answer is possible.
std::optional<Request> parseRequest(const Chain& chain, const Shape& shape) noexcept;

// The segments of the data of a read, write or get-id request, in `target`, which has room for as many as the chain has
// on that side; the part of it that was filled.
std::span<iovec> dataOf(const Chain& chain, const Request& request, std::span<iovec> target) noexcept;

// A part of the disk, in bytes.
struct Range {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  bool unmap = false;
};
using Ranges = std::array<Range, kMaxDiscardRanges>;

// The ranges of a discard or write-zeroes request: how many, or the status that answers a list that is wrong.
struct ParsedRanges {
  Status status = Status::kOk;
  std::size_t count = 0;
};
ParsedRanges parseRanges(const Chain& chain, const Request& request, const Shape& shape, Ranges& ranges) noexcept;

}  // namespace vmmhost::kvm::virtio::block
