// The line that a client of a VM's vsock socket begins with: "CONNECT <port>\n".
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace vmmhost::vm {

inline constexpr std::size_t kMaxConnectLine = 32;  // bytes, with its end

struct ConnectLine {
  enum class State : std::uint8_t {
    kUnfinished,
    kPort,  // it is one, of `bytes` bytes
    kWrong  // it is none, or too long
  };
  State state = State::kUnfinished;
  std::uint32_t port = 0;
  std::size_t bytes = 0;
};

// What came so far; it may go on behind the line. Blanks more than one, a carriage return before the end, and small
// letters are as good.
ConnectLine parseConnectLine(std::string_view received) noexcept;

}  // namespace vmmhost::vm
