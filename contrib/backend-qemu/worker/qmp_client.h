// Talks QMP with one QEMU on a KJ event loop.
//
// Threading: everything on the loop's thread. Errors: promises are rejected by vmmhost::worker::fail, so that the code
// survives: kDeadlineExceeded for a QEMU that does not answer, kFailedPrecondition for a command that it refuses,
// kProtocol and kWorkerDied for a connection that is no more.
#pragma once

#include <kj/async-io.h>

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "vmmhost/error.h"
#include "vmmhost/fd.h"
#include "worker/qmp_message.h"

namespace qemubackend {

class QmpClient final {
 public:
  // Takes a connected, non-blocking stream socket. `onEvent` runs for each event, in order; it must not destroy the
  // client.
  QmpClient(kj::AsyncIoContext& io, vmmhost::Fd socket, std::function<void(const QmpMessage&)> onEvent);
  QmpClient(const QmpClient&) = delete;
  QmpClient& operator=(const QmpClient&) = delete;

  // Reads until QEMU closes the connection, then gives an empty text, or until it breaks the protocol, then says how.
  // Never rejected. To be called once, first; nothing else is answered unless its promise is kept.
  kj::Promise<std::string> run();

  // Awaits the greeting and leaves negotiation mode. To be called once, before execute.
  kj::Promise<void> handshake(std::chrono::milliseconds limit);

  // Sends a command; fulfilled with its reply. `arguments` is a JSON object or empty. QEMU gets `limit` for it.
  static constexpr std::chrono::milliseconds kCommandTimeout{20000};
  kj::Promise<QmpMessage> execute(std::string_view command, std::string_view arguments = {},
                                  std::chrono::milliseconds limit = kCommandTimeout);

 private:
  static constexpr std::size_t kMaxPending = 32;

  kj::Promise<std::string> readLoop();
  void handle(QmpMessage message);
  void close(const vmmhost::Error& why);

  kj::Timer& timer_;
  kj::Own<kj::AsyncIoStream> stream_;
  std::function<void(const QmpMessage&)> onEvent_;
  LineReader lines_;
  char buffer_[4096];
  bool greeted_ = false;
  kj::PromiseFulfillerPair<void> greeting_ = kj::newPromiseAndFulfiller<void>();
  std::uint64_t nextId_ = 1;
  std::map<std::uint64_t, kj::Own<kj::PromiseFulfiller<QmpMessage>>> pending_;
  std::optional<vmmhost::Error> closed_;
  kj::Promise<void> writes_ = kj::READY_NOW;
};

}  // namespace qemubackend
