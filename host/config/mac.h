// Addresses of network cards that nobody has given one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace vmmhost::config {

// The address of the card with this index of the VM with this name: always the same, locally administered, and with a
// chance of 1 in 2^46 that of another. As text, "52:54:00:12:34:56".
std::string deriveMac(std::string_view vmName, std::uint32_t index);

}  // namespace vmmhost::config
