// The vsock device of a machine that has no guest: ports that answer as a program in a guest would.
#pragma once

#include <kj/async-io.h>

#include <cstdint>

#include "vmmhost/worker/worker.h"

namespace vmmhost::fake {

// Port 7 sends back what it gets, up to its end. Port 8 connects to port 8 of the host, as a guest does, and joins the
// two. Nobody listens on any other.
class FakeVsock final : private kj::TaskSet::ErrorHandler {
 public:
  static constexpr std::uint32_t kEcho = 7;
  static constexpr std::uint32_t kRelay = 8;

  FakeVsock(worker::Services& services, kj::AsyncIoContext& io) : services_(services), io_(io) { reset(); }
  ~FakeVsock() noexcept {}

  void connect(std::uint32_t port, Fd socket);
  void reset() { tasks_ = kj::heap<kj::TaskSet>(static_cast<kj::TaskSet::ErrorHandler&>(*this)); }  // closes all

 private:
  using Stream = kj::Own<kj::AsyncIoStream>;
  Stream wrap(Fd socket);
  kj::Promise<void> accept(kj::AsyncIoStream& client);
  void taskFailed(kj::Exception&&) override {}  // a connection that ended otherwise than it should

  worker::Services& services_;
  kj::AsyncIoContext& io_;
  kj::Own<kj::TaskSet> tasks_;
  std::uint32_t nextHostPort_ = std::uint32_t{1} << 30;
};

}  // namespace vmmhost::fake
