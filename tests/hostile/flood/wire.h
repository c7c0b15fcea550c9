// One connection to the process under attack.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>

namespace vmmhost::hostile {

using Clock = std::chrono::steady_clock;

// Written to and read from with calls that a worker's filter allows. The socket does not block and stays the caller's;
// SIGPIPE is ignored by the program.
class Wire {
 public:
  Wire(int socket, Clock::time_point end) : socket_(socket), end_(end) {}
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;

  // Sends all of it, waiting while nobody takes it. False when time is up or the connection is gone.
  bool send(std::span<const std::uint8_t> bytes);
  // Reads at most `bytes` of what has come, and forgets it. False as above.
  bool read(std::size_t bytes = std::size_t{64} << 10);
  bool pause(std::chrono::milliseconds time);  // sending and reading nothing; false as above
  void rest();                                 // the same until time is up or the connection is gone

  bool isOver() const { return isCut_ || Clock::now() >= end_; }
  bool isCut() const { return isCut_; }
  std::uint64_t sentBytes() const { return sentBytes_; }
  int socket() const { return socket_; }

 private:
  bool await(short events, std::chrono::milliseconds limit);

  int socket_;
  Clock::time_point end_;
  bool isCut_ = false;
  std::uint64_t sentBytes_ = 0;
};

}  // namespace vmmhost::hostile
