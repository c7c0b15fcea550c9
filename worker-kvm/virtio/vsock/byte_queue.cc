#include "worker-kvm/virtio/vsock/byte_queue.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

namespace vmmhost::kvm::virtio::vsock {

namespace {

constexpr std::size_t kSmallest = 4096;

}  // namespace

bool ByteQueue::reserve(std::size_t bytes) noexcept {
  if (bytes <= capacity_) {
    return true;
  }
  const std::size_t capacity = std::max(kSmallest, std::bit_ceil(bytes));
  std::unique_ptr<std::uint8_t[]> larger;
  try {
    larger = std::make_unique_for_overwrite<std::uint8_t[]>(capacity);
  } catch (const std::bad_alloc&) {
    return false;
  }
  iovec pieces[2];
  std::size_t at = 0;
  for (std::size_t i = 0, count = front(pieces); i < count; ++i) {
    std::memcpy(larger.get() + at, pieces[i].iov_base, pieces[i].iov_len);
    at += pieces[i].iov_len;
  }
  bytes_ = std::move(larger);
  capacity_ = capacity;
  begin_ = 0;
  return true;
}

bool ByteQueue::append(std::span<const iovec> pieces, std::uint64_t offset) noexcept {
  std::uint64_t total = 0;
  for (const iovec& piece : pieces) {
    total += piece.iov_len;
  }
  if (offset >= total) {
    return true;
  }
  if (!reserve(size_ + (total - offset))) {
    return false;
  }
  for (const iovec& piece : pieces) {
    if (offset >= piece.iov_len) {
      offset -= piece.iov_len;
      continue;
    }
    const auto* from = static_cast<const std::uint8_t*>(piece.iov_base) + offset;
    std::size_t left = piece.iov_len - offset;
    offset = 0;
    while (left > 0) {
      const std::size_t at = (begin_ + size_) & (capacity_ - 1);
      const std::size_t count = std::min(left, capacity_ - at);
      std::memcpy(bytes_.get() + at, from, count);
      from += count;
      left -= count;
      size_ += count;
    }
  }
  return true;
}

std::size_t ByteQueue::front(std::span<iovec, 2> pieces) const noexcept {
  const std::size_t first = std::min(size_, capacity_ - begin_);
  pieces[0] = {bytes_.get() + begin_, first};
  pieces[1] = {bytes_.get(), size_ - first};
  return size_ == 0 ? 0 : first == size_ ? 1 : 2;
}

void ByteQueue::consume(std::size_t bytes) noexcept {
  size_ -= bytes;
  if (size_ == 0) {
    bytes_.reset();
    capacity_ = 0;
    begin_ = 0;
    return;
  }
  begin_ = (begin_ + bytes) & (capacity_ - 1);
}

}  // namespace vmmhost::kvm::virtio::vsock
