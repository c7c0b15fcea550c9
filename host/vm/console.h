// The console of one VM: always drained, kept in a ring and a file, shown to any number of attached clients.
#pragma once

#include <kj/async-io.h>
#include <kj/async-unix.h>

#include <cstdint>
#include <list>
#include <memory>
#include <string>

#include "host/base/rotating_file.h"
#include "vmmhost/fd.h"

namespace vmmhost::vm {

class Console {
 public:
  static constexpr std::size_t kRingBytes = 256 * 1024;
  static constexpr std::size_t kMaxInput = 64 * 1024;  // typed and not yet taken by the guest
  static constexpr std::size_t kMaxClients = 16;

  // `guest` is the host's end of the console's stream socket, non-blocking. `file` may be null.
  Console(kj::AsyncIoContext& io, Fd guest, std::unique_ptr<RotatingFile> file);
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  // A stream socket for a client: output from at most `replayBytes` before now on; what the client sends goes to the
  // guest if `input`. A slow client loses the oldest bytes and is told how many. Throws kResourceExhausted.
  Fd attach(std::uint32_t replayBytes, bool input);

  // The worker is gone: reads what is left, lets clients take it until `limit`, then closes them. Who attaches
  // afterwards gets what the ring holds, and its end.
  kj::Promise<void> finish(kj::Duration limit);

 private:
  class Client;
  friend class Client;

  kj::Promise<void> pumpGuest();
  bool readGuest();  // true: there may be more
  kj::Promise<void> pumpInput();
  void append(const char* data, std::size_t size);
  void wakeClients();
  void wakeInputs();  // of those who wait for room
  void dropFinished();
  std::uint64_t ringStart() const { return end_ - std::min<std::uint64_t>(end_, kRingBytes); }

  kj::AsyncIoContext& io_;
  Fd guest_;
  std::unique_ptr<RotatingFile> file_;
  kj::Own<kj::UnixEventPort::FdObserver> observer_;
  std::string ring_;
  std::uint64_t end_ = 0;  // bytes of output ever seen; ring_[offset % kRingBytes]
  bool finished_ = false;
  std::string input_;
  bool inputPumping_ = false;
  std::list<std::unique_ptr<Client>> clients_;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> flushed_;
  kj::Promise<void> guestPump_ = nullptr;
  kj::Promise<void> inputPump_ = nullptr;
  kj::Promise<void> cleanup_ = nullptr;
};

}  // namespace vmmhost::vm
