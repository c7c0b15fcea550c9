#include "host/config/mac.h"

#include <cstdio>

namespace vmmhost::config {

namespace {

constexpr std::uint8_t kLocal = 2;  // IEEE 802: not of a maker
constexpr std::uint8_t kGroup = 1;

// FNV-1a, and the finish of MurmurHash3, which spreads what differs at the end of a name only.
std::uint64_t hash(std::string_view text) {
  std::uint64_t value = 0xcbf29ce484222325;
  for (const char character : text) {
    value = (value ^ static_cast<unsigned char>(character)) * 0x100000001b3;
  }
  value = (value ^ (value >> 33)) * 0xff51afd7ed558ccd;
  value = (value ^ (value >> 33)) * 0xc4ceb9fe1a85ec53;
  return value ^ (value >> 33);
}

}  // namespace

std::string deriveMac(std::string_view vmName, std::uint32_t index) {
  const std::uint64_t value = hash(std::string(vmName) + '/' + std::to_string(index));
  const auto byte = [value](int number) { return static_cast<unsigned>(value >> (8 * number) & 0xff); };
  char text[18];
  std::snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", (byte(0) & ~unsigned{kGroup}) | kLocal, byte(1),
                byte(2), byte(3), byte(4), byte(5));
  return text;
}

}  // namespace vmmhost::config
