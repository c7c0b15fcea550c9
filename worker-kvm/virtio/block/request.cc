#include "worker-kvm/virtio/block/request.h"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace vmmhost::kvm::virtio::block {

namespace {

struct Header {
  std::uint32_t type = 0;
  std::uint32_t reserved = 0;
  std::uint64_t sector = 0;
};
static_assert(sizeof(Header) == kHeaderBytes);

struct RangeOnTheWire {
  std::uint64_t sector = 0;
  std::uint32_t sectors = 0;
  std::uint32_t flags = 0;
};
static_assert(sizeof(RangeOnTheWire) == kRangeBytes);

// A copy: the guest may change its own meanwhile.
template <typename Value>
bool readOnce(const Chain& chain, std::uint64_t offset, Value& value) noexcept {
  const std::size_t copied = copyFrom(chain.readable, offset, {reinterpret_cast<std::uint8_t*>(&value), sizeof value});
  std::atomic_signal_fence(std::memory_order_seq_cst);
  return copied == sizeof value;
}

bool isInside(std::uint64_t sector, std::uint64_t sectors, const Shape& shape) noexcept {
  return sector <= shape.sectors && sectors <= shape.sectors - sector;
}

void answer(Request& request, Status status) noexcept {
  request.action = Action::kAnswer;
  request.answer = status;
}

void parseTransfer(Request& request, Action action, std::uint64_t sector, std::uint64_t bytes,
                   const Shape& shape) noexcept {
  // 5.2.6.1: the data is a multiple of 512 bytes, and no request goes beyond the capacity.
  if (bytes % kSectorBytes != 0 || !isInside(sector, bytes / kSectorBytes, shape)) {
    return answer(request, Status::kIoErr);
  }
  request.action = action;
  request.offset = sector * kSectorBytes;
  request.bytes = bytes;
  if (bytes == 0) {
    answer(request, Status::kOk);
  }
}

void parseList(Request& request, Action action, bool isAgreed, std::uint64_t bytes, const Shape& shape) noexcept {
  if (!isAgreed) {
    return answer(request, Status::kUnsupp);
  }
  // 5.2.6.2: a read-only device answers what would change it with VIRTIO_BLK_S_IOERR.
  const std::size_t most = action == Action::kDiscard ? kMaxDiscardRanges : kMaxWriteZeroesRanges;
  if (shape.readOnly || bytes == 0 || bytes % kRangeBytes != 0 || bytes / kRangeBytes > most) {
    return answer(request, Status::kIoErr);
  }
  request.action = action;
  request.bytes = bytes;
}

}  // namespace

std::optional<Request> parseRequest(const Chain& chain, const Shape& shape) noexcept {
  if (chain.writable.empty()) {
    return std::nullopt;
  }
  Request request;
  const iovec& last = chain.writable.back();  // none is empty: see Queue
  request.status = static_cast<std::uint8_t*>(last.iov_base) + (last.iov_len - 1);
  request.room = chain.writableBytes - 1;
  Header header;
  if (!readOnce(chain, 0, header)) {
    answer(request, Status::kIoErr);
    return request;
  }
  const std::uint64_t sent = chain.readableBytes - kHeaderBytes;
  switch (static_cast<Type>(header.type)) {
    case Type::kIn:
      parseTransfer(request, Action::kRead, header.sector, request.room, shape);
      break;
    case Type::kOut:
      parseTransfer(request, Action::kWrite, header.sector, sent, shape);
      if (shape.readOnly) {
        answer(request, Status::kIoErr);
      }
      break;
    case Type::kFlush:
      request.action = Action::kFlush;
      break;
    case Type::kGetId:
      request.action = Action::kGetId;
      request.bytes = std::min<std::uint64_t>(request.room, kIdBytes);
      break;
    case Type::kDiscard:
      parseList(request, Action::kDiscard, shape.canDiscard, sent, shape);
      break;
    case Type::kWriteZeroes:
      parseList(request, Action::kWriteZeroes, shape.canWriteZeroes, sent, shape);
      break;
    default:
      answer(request, Status::kUnsupp);
      break;
  }
  return request;
}

std::span<iovec> dataOf(const Chain& chain, const Request& request, std::span<iovec> target) noexcept {
  const bool isWrite = request.action == Action::kWrite;
  std::uint64_t skip = isWrite ? kHeaderBytes : 0;
  std::uint64_t left = request.bytes;
  std::size_t count = 0;
  for (const iovec& segment : isWrite ? chain.readable : chain.writable) {
    const std::uint64_t skipped = std::min<std::uint64_t>(skip, segment.iov_len);
    const std::uint64_t bytes = std::min<std::uint64_t>(segment.iov_len - skipped, left);
    skip -= skipped;
    left -= bytes;
    if (bytes != 0 && count < target.size()) {
      target[count++] = {static_cast<std::uint8_t*>(segment.iov_base) + skipped, bytes};
    }
  }
  return target.first(count);
}

ParsedRanges parseRanges(const Chain& chain, const Request& request, const Shape& shape, Ranges& ranges) noexcept {
  const bool isDiscard = request.action == Action::kDiscard;
  ParsedRanges parsed;
  for (std::uint64_t at = 0; at < request.bytes && parsed.count < ranges.size(); at += kRangeBytes) {
    RangeOnTheWire range;
    if (!readOnce(chain, kHeaderBytes + at, range)) {
      return {Status::kIoErr, 0};
    }
    // 5.2.6.2: unknown flags, and unmap for a discard, are unsupported.
    if ((range.flags & ~kUnmap) != 0 || (isDiscard && range.flags != 0)) {
      return {Status::kUnsupp, 0};
    }
    const std::uint32_t most = isDiscard ? kMaxDiscardSectors : kMaxWriteZeroesSectors;
    if (range.sectors > most || !isInside(range.sector, range.sectors, shape)) {
      return {Status::kIoErr, 0};
    }
    if (range.sectors != 0) {
      ranges[parsed.count++] = {range.sector * kSectorBytes, range.sectors * kSectorBytes,
                                isDiscard || (range.flags & kUnmap) != 0};
    }
  }
  return parsed;
}

}  // namespace vmmhost::kvm::virtio::block
