// Bytes on their way to a socket that takes no more at the moment.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace vmmhost::kvm::virtio::vsock {

// A ring that holds memory only while there is something in it. The caller bounds what is put in.
class ByteQueue {
 public:
  // The pieces from byte `offset` on. False: there is no memory for them; nothing changes then.
  bool append(std::span<const iovec> pieces, std::uint64_t offset) noexcept;
  // What is in front, in one or two pieces; the rest of them is empty.
  std::size_t front(std::span<iovec, 2> pieces) const noexcept;  // how many
  void consume(std::size_t bytes) noexcept;
  void clear() noexcept { consume(size_); }

  std::size_t size() const noexcept { return size_; }
  bool isEmpty() const noexcept { return size_ == 0; }

 private:
  bool reserve(std::size_t bytes) noexcept;

  std::unique_ptr<std::uint8_t[]> bytes_;
  std::size_t capacity_ = 0;  // a power of 2, or 0
  std::size_t begin_ = 0;
  std::size_t size_ = 0;
};

}  // namespace vmmhost::kvm::virtio::vsock
