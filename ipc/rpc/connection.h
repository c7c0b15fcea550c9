// One Cap'n Proto connection over a Unix stream socket, bounded in everything that a hostile peer could grow.
#pragma once

#include <capnp/capability.h>
#include <kj/async-io.h>
#include <kj/io.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "vmmhost/error.h"
#include "vmmhost/fd.h"
#include "vmmhost/schema/error.capnp.h"
#include "vmmhost/schema/worker.capnp.h"

namespace vmmhost::rpc {

// What one connection may cost this process at most; see ipc/rpc/message_stream.h.
struct Limits {
  std::uint32_t maxQueuedMessages = 64;  // written and not yet taken by the socket
  std::uint32_t maxOpenQuestions = 64;   // calls of the peer that are not finished, or not answered
  std::uint32_t maxCapabilities = 16;    // that come with one message
  std::uint32_t maxSegments = 16;
  std::uint64_t maxMessageWords = 32768;  // of one that the peer sends
  std::uint64_t maxSentWords = 32768;     // of one to the peer: a longer one fails here, in words that name its length
  std::uint32_t maxNesting = 24;
  std::uint64_t flowLimitWords = 8192;   // in calls that are not answered yet: then no further one is taken
  std::chrono::microseconds turn{2000};  // then other work of the loop gets its turn
  bool acceptDescriptors = false;
  bool duplicatesDescriptors = true;  // what was received; false: it is taken over without, see ipc/rpc/received.h
};

enum class Side { kClient, kServer };  // of the two-party network; either side may offer a bootstrap capability

class Connection {
 public:
  // Takes the socket and makes it non-blocking and close-on-exec. Throws Error if it is none. `bootstrap` is what the
  // peer gets when it asks; null: nothing.
  Connection(kj::AsyncIoContext& io, Fd socket, Side side, const Limits& limits,
             capnp::Capability::Client bootstrap = nullptr);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  template <typename Interface>
  typename Interface::Client bootstrap() {
    return bootstrapCapability().castAs<Interface>();
  }
  // Fulfilled when the peer is gone, for whatever reason (end of file, a broken limit). May be asked for repeatedly.
  kj::Promise<void> onDisconnect();
  // Why the connection was cut, when a limit or malformed data cut it; empty otherwise.
  const std::string& violation() const;
  // Calls of ours that the peer has not answered, those included that it has not taken yet. Whoever makes calls that a
  // peer may leave unanswered has to look at this.
  std::size_t unansweredCalls();

 private:
  capnp::Capability::Client bootstrapCapability();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A connected pair of stream sockets, both close-on-exec. The local one is non-blocking; the remote one must be too
// where it goes to a worker, whose filter lets it change no flags.
enum class RemoteEnd { kBlocking, kNonBlocking };
struct SocketPair {
  Fd local;
  Fd remote;
};
SocketPair makeSocketPair(RemoteEnd remote = RemoteEnd::kBlocking);

// A capability that carries `descriptor` to the peer (closed when the peer drops it).
schema::Descriptor::Client makeDescriptor(Fd descriptor);
// The descriptor behind a received capability, duplicated. Rejected with kProtocol if it carries none.
kj::Promise<Fd> receiveDescriptor(schema::Descriptor::Client descriptor);

void writeError(const Error& error, schema::Error::Builder out);
Error readError(schema::Error::Reader error);
// For a call's result: throws the Error that it carries, if it carries one.
template <typename Results>
void throwIfError(const Results& results) {
  if (results.hasError()) {
    throw readError(results.getError());
  }
}

// KJ carries exceptions as kj::Exception. These convert without loss of code, message, hint, retryable and field within
// one process: toKj packs an Error, fromKj unpacks it or classifies a foreign exception (DISCONNECTED: workerDied,
// OVERLOADED: resourceExhausted, UNIMPLEMENTED: unsupported, else protocol or internal). What a peer sends is foreign,
// packed or not.
kj::Exception toKj(const Error& error);
Error fromKj(const kj::Exception& exception);
// Raises an Error inside a KJ continuation, where a plain throw would lose all but its text.
[[noreturn]] void raise(const Error& error);
// A continuation for kj::Promise::then that may throw Error.
template <typename Func>
auto guarded(Func func) {
  return [func = std::move(func)](auto&&... arguments) mutable -> decltype(auto) {
    try {
      return func(std::forward<decltype(arguments)>(arguments)...);
    } catch (const Error& error) {
      raise(error);
    }
  };
}
template <typename T = void>
kj::Promise<T> fail(const Error& error) {
  return kj::Promise<T>(toKj(error));
}

// Rejects with kDeadlineExceeded, naming `what`, when the promise takes longer.
template <typename T>
kj::Promise<T> withDeadline(kj::Timer& timer, std::chrono::milliseconds limit, std::string what,
                            kj::Promise<T> promise) {
  auto expired = timer.afterDelay(limit.count() * kj::MILLISECONDS).then([what = std::move(what), limit]() {
    return fail<T>(Error(ErrorCode::kDeadlineExceeded,
                         what + " took longer than " + std::to_string(limit.count()) + " ms", {}, true));
  });
  return promise.exclusiveJoin(kj::mv(expired));
}

}  // namespace vmmhost::rpc
