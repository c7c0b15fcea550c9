#include "tests/fake/vsock.h"

#include <string>
#include <utility>

namespace vmmhost::fake {

namespace {

kj::Promise<void> pump(kj::AsyncIoStream& from, kj::AsyncIoStream& to) {
  // At once: who joins promises looks at them when all are there.
  return from.pumpTo(to).then([&to](std::uint64_t) { to.shutdownWrite(); }).eagerlyEvaluate(nullptr);
}

}  // namespace

FakeVsock::Stream FakeVsock::wrap(Fd socket) {
  using Flags = kj::LowLevelAsyncIoProvider;
  return io_.lowLevelProvider->wrapSocketFd(socket.release(),
                                            Flags::TAKE_OWNERSHIP | Flags::ALREADY_CLOEXEC | Flags::ALREADY_NONBLOCK);
}

kj::Promise<void> FakeVsock::accept(kj::AsyncIoStream& client) {
  auto line = kj::heapString(("OK " + std::to_string(nextHostPort_++) + "\n").c_str());
  auto written = client.write(line.begin(), line.size());
  return written.attach(kj::mv(line));
}

void FakeVsock::connect(std::uint32_t port, Fd socket) {
  if (port != kEcho && port != kRelay) {
    return;  // closes it
  }
  Stream client = wrap(std::move(socket));
  auto& clientStream = *client;
  if (port == kEcho) {
    tasks_->add(accept(clientStream)
                    .then([&clientStream]() { return pump(clientStream, clientStream); })
                    .attach(kj::mv(client)));
    return;
  }
  tasks_->add(services_.connectVsock(kRelay)
                  .then([this, &clientStream](Fd service) {
                    Stream server = wrap(std::move(service));
                    auto& serverStream = *server;
                    return accept(clientStream)
                        .then([&clientStream, &serverStream]() {
                          auto both = kj::heapArrayBuilder<kj::Promise<void>>(2);
                          both.add(pump(clientStream, serverStream));
                          both.add(pump(serverStream, clientStream));
                          return kj::joinPromises(both.finish());
                        })
                        .attach(kj::mv(server));
                  })
                  .attach(kj::mv(client)));
}

}  // namespace vmmhost::fake
