// Bytes for an RPC server: as they are, or cut into messages that at least have a right frame.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace vmmhost::fuzz {

// The first byte chooses. Framed, each message is a byte with its number of words, and the words.
inline std::vector<std::uint8_t> rpcStream(std::span<const std::uint8_t> input) {
  if (input.empty() || input[0] % 2 == 0) {
    return {input.begin() + (input.empty() ? 0 : 1), input.end()};
  }
  std::vector<std::uint8_t> stream;
  for (input = input.subspan(1); !input.empty();) {
    const std::size_t given = input[0];
    input = input.subspan(1);
    const std::uint32_t words = static_cast<std::uint32_t>(std::min(given, input.size() / 8));
    std::uint8_t header[8] = {};
    std::memcpy(header + 4, &words, sizeof words);
    stream.insert(stream.end(), header, header + 8);
    stream.insert(stream.end(), input.begin(), input.begin() + words * 8);
    input = input.subspan(words * 8);
    if (words == 0 && given != 0) {
      break;
    }
  }
  return stream;
}

}  // namespace vmmhost::fuzz
