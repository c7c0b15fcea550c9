// A private mapping of its own, page aligned, that takes memory only where it is written.
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "vmmhost/error.h"

namespace vmmhost::kvm::virtio::block {

class Pages {
 public:
  Pages(std::size_t bytes, int protection)
      : data_(::mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)), bytes_(bytes) {
    if (data_ == MAP_FAILED) {
      throw systemError("memory for a disk", errno);
    }
  }
  ~Pages() { ::munmap(data_, bytes_); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  std::uint8_t* data() const noexcept { return static_cast<std::uint8_t*>(data_); }
  std::size_t size() const noexcept { return bytes_; }

 private:
  void* data_;
  std::size_t bytes_;
};

}  // namespace vmmhost::kvm::virtio::block
