#include "ipc/rpc/connection.h"

#include <capnp/rpc-twoparty.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <sys/socket.h>

#include <cerrno>

#include "ipc/rpc/message_stream.h"
#include "ipc/rpc/received.h"

namespace vmmhost::rpc {
namespace {

using VatId = capnp::rpc::twoparty::VatId;

capnp::rpc::twoparty::Side toCapnp(Side side) {
  return side == Side::kClient ? capnp::rpc::twoparty::Side::CLIENT : capnp::rpc::twoparty::Side::SERVER;
}

capnp::ReaderOptions readerOptions(const Limits& limits) {
  capnp::ReaderOptions options;
  // The library holds against this what is sent; for what is received see BoundedMessageStream.
  options.traversalLimitInWords = limits.maxSentWords;
  options.nestingLimit = static_cast<int>(limits.maxNesting);
  return options;
}

// A worker's filter forbids F_SETFL, so its host hands over a socket that does not block already.
Fd prepared(Fd socket) {
  const int flags = ::fcntl(socket.get(), F_GETFL);
  if (flags < 0 || ::fcntl(socket.get(), F_SETFD, FD_CLOEXEC) != 0 ||
      ((flags & O_NONBLOCK) == 0 && ::fcntl(socket.get(), F_SETFL, flags | O_NONBLOCK) != 0)) {
    throw systemError("preparing a socket", errno);
  }
  return socket;
}

class DescriptorServer final : public schema::Descriptor::Server {
 public:
  explicit DescriptorServer(Fd fd) : fd_(std::move(fd)) {}
  kj::Maybe<int> getFd() override { return fd_.get(); }

 private:
  Fd fd_;
};

// The library's server dies of being asked for a capability that is null.
capnp::RpcSystem<VatId> makeRpc(capnp::TwoPartyVatNetwork& network, capnp::Capability::Client bootstrap) {
  return capnp::ClientHook::from(bootstrap)->isNull() ? capnp::makeRpcClient(network)
                                                      : capnp::makeRpcServer(network, kj::mv(bootstrap));
}

}  // namespace

struct Connection::Impl {
  Impl(kj::AsyncIoContext& io, Fd socket, Side side, const Limits& limits, capnp::Capability::Client bootstrap)
      : stream(io.lowLevelProvider->wrapUnixSocketFd(
            kj::AutoCloseFd(prepared(std::move(socket)).release()),
            kj::LowLevelAsyncIoProvider::ALREADY_CLOEXEC | kj::LowLevelAsyncIoProvider::ALREADY_NONBLOCK)),
        messages(*stream, io.provider->getTimer(), limits),
        // At least 1: with 0 the library drops outgoing descriptors as well. The message stream refuses incoming ones.
        network(messages, 1, toCapnp(side), readerOptions(limits)),
        rpc(makeRpc(network, kj::mv(bootstrap))),
        side(side),
        disconnected(network.onDisconnect().fork()) {
    messages.setQueueCount([this]() { return network.getCurrentQueueCount(); });
  }

  kj::Own<kj::AsyncCapabilityStream> stream;
  BoundedMessageStream messages;
  capnp::TwoPartyVatNetwork network;
  capnp::RpcSystem<VatId> rpc;
  Side side;
  kj::ForkedPromise<void> disconnected;
};

Connection::Connection(kj::AsyncIoContext& io, Fd socket, Side side, const Limits& limits,
                       capnp::Capability::Client bootstrap)
    : impl_(std::make_unique<Impl>(io, std::move(socket), side, limits, kj::mv(bootstrap))) {
}

Connection::~Connection() = default;

capnp::Capability::Client Connection::bootstrapCapability() {
  capnp::word scratch[4] = {};
  capnp::MallocMessageBuilder message(kj::arrayPtr(scratch, 4));
  auto peer = message.initRoot<VatId>();
  peer.setSide(toCapnp(impl_->side == Side::kClient ? Side::kServer : Side::kClient));
  return impl_->rpc.bootstrap(peer);
}

kj::Promise<void> Connection::onDisconnect() {
  return impl_->disconnected.addBranch();
}

std::size_t Connection::unansweredCalls() {
  return impl_->messages.police().ownCalls() + impl_->network.getCurrentQueueCount();
}

const std::string& Connection::violation() const {
  return impl_->messages.violation();
}

SocketPair makeSocketPair(RemoteEnd remote) {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    throw systemError("making a socket pair", errno);
  }
  SocketPair pair{Fd(fds[0]), Fd(fds[1])};
  if (::fcntl(pair.local.get(), F_SETFL, O_NONBLOCK) != 0 ||
      (remote == RemoteEnd::kNonBlocking && ::fcntl(pair.remote.get(), F_SETFL, O_NONBLOCK) != 0)) {
    throw systemError("making a socket non-blocking", errno);
  }
  return pair;
}

schema::Descriptor::Client makeDescriptor(Fd descriptor) {
  return kj::heap<DescriptorServer>(std::move(descriptor));
}

kj::Promise<Fd> receiveDescriptor(schema::Descriptor::Client descriptor) {
  return descriptor.getFd()
      .then([](kj::Maybe<int> fd) -> Fd {
        KJ_IF_MAYBE (number, fd) {
          Fd taken = received::take(*number);
          return taken ? kj::mv(taken) : guarded([number]() { return duplicate(*number); })();
        }
        raise(Error(ErrorCode::kProtocol, "a capability that should carry a descriptor came without one"));
      })
      .attach(kj::mv(descriptor));
}

}  // namespace vmmhost::rpc
