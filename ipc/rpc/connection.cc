#include "ipc/rpc/connection.h"

#include <capnp/rpc-twoparty.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>

#include "ipc/rpc/message_stream.h"

namespace vmmhost::rpc {
namespace {

using VatId = capnp::rpc::twoparty::VatId;

capnp::rpc::twoparty::Side toCapnp(Side side) {
  return side == Side::kClient ? capnp::rpc::twoparty::Side::CLIENT : capnp::rpc::twoparty::Side::SERVER;
}

capnp::ReaderOptions readerOptions(const Limits& limits) {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = limits.maxMessageWords;
  options.nestingLimit = static_cast<int>(limits.maxNesting);
  return options;
}

// With calls that every worker's filter allows; KJ would make others.
kj::AutoCloseFd prepared(Fd socket) {
  int nonBlocking = 1;
  if (::fcntl(socket.get(), F_SETFD, FD_CLOEXEC) != 0 || ::ioctl(socket.get(), FIONBIO, &nonBlocking) != 0) {
    throw systemError("preparing a socket", errno);
  }
  return kj::AutoCloseFd(socket.release());
}

class DescriptorServer final : public schema::Descriptor::Server {
 public:
  explicit DescriptorServer(Fd fd) : fd_(std::move(fd)) {}
  kj::Maybe<int> getFd() override { return fd_.get(); }

 private:
  Fd fd_;
};

}  // namespace

struct Connection::Impl {
  Impl(kj::AsyncIoContext& io, Fd socket, Side side, const Limits& limits, capnp::Capability::Client bootstrap)
      : stream(io.lowLevelProvider->wrapUnixSocketFd(
            prepared(std::move(socket)),
            kj::LowLevelAsyncIoProvider::ALREADY_CLOEXEC | kj::LowLevelAsyncIoProvider::ALREADY_NONBLOCK)),
        messages(*stream, io.provider->getTimer(), limits),
        // At least 1: with 0 the library drops outgoing descriptors as well. The message stream refuses incoming ones.
        network(messages, 1, toCapnp(side), readerOptions(limits)),
        rpc(capnp::makeRpcServer(network, kj::mv(bootstrap))),
        side(side),
        disconnected(network.onDisconnect().fork()) {
    messages.setQueueCount([this]() { return network.getCurrentQueueCount(); });
    rpc.setFlowLimit(limits.flowLimitWords);
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

const std::string& Connection::violation() const {
  return impl_->messages.violation();
}

SocketPair makeSocketPair() {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    throw systemError("making a socket pair", errno);
  }
  SocketPair pair{Fd(fds[0]), Fd(fds[1])};
  if (::fcntl(pair.local.get(), F_SETFL, O_NONBLOCK) != 0) {
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
          const int copy = ::fcntl(*number, F_DUPFD_CLOEXEC, 3);
          if (copy < 0) {
            raise(systemError("duplicating a received descriptor", errno));
          }
          return Fd(copy);
        }
        raise(Error(ErrorCode::kProtocol, "a capability that should carry a descriptor came without one"));
      })
      .attach(kj::mv(descriptor));
}

}  // namespace vmmhost::rpc
