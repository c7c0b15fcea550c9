// Items by number, as many as there can ever be, that need memory only once they are used.
#pragma once

#include <sys/mman.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

#include "worker-kvm/virtio/block/pages.h"

namespace vmmhost::kvm::virtio::block {

template <typename Item, std::size_t kItems>
class Pool {
 public:
  static_assert(std::is_trivially_destructible_v<Item> && alignof(Item) <= 4096 && kItems <= 65536);

  Pool() : pages_(sizeof(Item) * kItems, PROT_READ | PROT_WRITE) {}

  bool isEmpty() const noexcept { return free_ == 0 && made_ == kItems; }
  std::size_t used() const noexcept { return made_ - free_; }
  // Not from an empty one. The item is as it was freed; the last one freed is the first one allocated.
  std::uint16_t allocate() noexcept {
    if (free_ != 0) {
      return freeItems_[--free_];
    }
    std::construct_at(items() + made_);
    return static_cast<std::uint16_t>(made_++);
  }
  void free(std::uint16_t number) noexcept { freeItems_[free_++] = number; }
  Item& operator[](std::uint16_t number) noexcept { return items()[number]; }

 private:
  Item* items() noexcept { return reinterpret_cast<Item*>(pages_.data()); }

  Pages pages_;
  std::size_t made_ = 0;
  std::size_t free_ = 0;
  std::array<std::uint16_t, kItems> freeItems_;
};

}  // namespace vmmhost::kvm::virtio::block
