#include "tests/hostile/flood/wire.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace vmmhost::hostile {

using std::chrono::milliseconds;

// True when the socket is ready. A connection that is gone is seen whatever is waited for.
bool Wire::await(short events, milliseconds limit) {
  const auto left = std::chrono::ceil<milliseconds>(end_ - Clock::now());
  pollfd ready = {socket_, events, 0};
  const int count = ::poll(&ready, 1, static_cast<int>(std::clamp(left, milliseconds(0), limit).count()));
  if (count > 0 && (ready.revents & (POLLHUP | POLLERR)) != 0) {
    isCut_ = true;
  }
  return count > 0 && !isCut_;
}

bool Wire::send(std::span<const std::uint8_t> bytes) {
  while (!bytes.empty() && !isOver()) {
    const ssize_t count = ::write(socket_, bytes.data(), bytes.size());
    if (count > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(count));
      sentBytes_ += static_cast<std::uint64_t>(count);
    } else if (errno == EAGAIN) {
      await(POLLOUT, milliseconds(1000));
    } else if (errno != EINTR) {
      isCut_ = true;
    }
  }
  return bytes.empty();
}

bool Wire::read(std::size_t bytes) {
  std::array<std::uint8_t, 4096> buffer;
  while (bytes > 0 && !isOver()) {
    const ssize_t count = ::read(socket_, buffer.data(), std::min(bytes, buffer.size()));
    if (count > 0) {
      bytes -= static_cast<std::size_t>(count);
    } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
      isCut_ = true;
    } else {
      break;
    }
  }
  return !isOver();
}

bool Wire::pause(milliseconds time) {
  await(0, time);
  return !isOver();
}

void Wire::rest() {
  while (pause(milliseconds(1000))) {
  }
}

}  // namespace vmmhost::hostile
