// Little-endian fields one after the other, without padding: how firmware tables are laid out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace vmmhost::kvm::memory {

class ByteWriter {
 public:
  // The type is always named: it is the field's width.
  template <typename Number>
  void put(std::type_identity_t<Number> value) {
    static_assert(std::is_unsigned_v<Number>);
    for (std::size_t index = 0; index < sizeof(Number); ++index) {
      bytes_.push_back(static_cast<std::uint8_t>(std::uint64_t{value} >> (8 * index)));
    }
  }
  void putText(std::string_view text) { bytes_.insert(bytes_.end(), text.begin(), text.end()); }
  void putBytes(const std::vector<std::uint8_t>& bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
  void putZeros(std::size_t count) { bytes_.resize(bytes_.size() + count); }

  std::size_t size() const noexcept { return bytes_.size(); }
  std::vector<std::uint8_t> take() { return std::move(bytes_); }

 private:
  std::vector<std::uint8_t> bytes_;
};

// What makes the sum of all bytes 0 when it is added to one of them that is 0.
inline std::uint8_t checksumOf(std::span<const std::uint8_t> bytes) {
  std::uint8_t sum = 0;
  for (const std::uint8_t byte : bytes) {
    sum = static_cast<std::uint8_t>(sum + byte);
  }
  return static_cast<std::uint8_t>(-sum);
}

}  // namespace vmmhost::kvm::memory
