// A client's bytes on the control connection: frame header, message stream, police, and the real server behind them.
// The VM is never made: what asks for one is told so.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "host/control/control_server.h"
#include "ipc/rpc/message_stream.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/rpc_input.h"

using namespace vmmhost;

namespace {

class NoVm final : public control::Target {
 public:
  vm::Vm* vm() override { return nullptr; }
  kj::Promise<void> onConsole() override { return kj::NEVER_DONE; }
  kj::Promise<void> onStarted() override { return kj::NEVER_DONE; }
  kj::Promise<void> onFinished() override { return kj::NEVER_DONE; }
  const vm::Outcome& outcome() override { return outcome_; }
  kj::Promise<std::uint64_t> measureMemory(std::chrono::milliseconds) override { return std::uint64_t{0}; }
  void describe(schema::VmInfo::Builder out, std::uint64_t) override { out.setName("fuzzed"); }
  kj::Promise<void> stop(schema::EndKind, std::string, int) override { return kj::READY_NOW; }
  void starterDetached() override {}
  void starterGone() override { isGone = true; }

  bool isGone = false;

 private:
  vm::Outcome outcome_;
};

void header(const std::uint8_t* data, std::size_t size) {
  const rpc::Limits limits;
  const rpc::FrameHeader header = rpc::parseFrameHeader(data, size, limits);
  if (header.state == rpc::FrameHeader::State::kComplete) {
    std::uint64_t words = 0;
    for (std::uint32_t i = 0; i < header.segmentCount; ++i) {
      words += header.segmentWords[i];
    }
    fuzz::require(header.segmentCount >= 1 && header.segmentCount <= limits.maxSegments && words == header.bodyWords &&
                      words <= limits.maxMessageWords && header.headerBytes <= size,
                  "a complete header keeps to the limits");
  }
}

kj::Promise<void> readAll(kj::AsyncIoStream& stream, kj::ArrayPtr<kj::byte> buffer) {
  return stream.tryRead(buffer.begin(), 1, buffer.size()).then([&stream, buffer](std::size_t count) {
    return count == 0 ? kj::Promise<void>(kj::READY_NOW) : readAll(stream, buffer);
  });
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static kj::AsyncIoContext io = kj::setupAsyncIo();
  static Log log(nullptr, false);
  header(data, size);
  const std::vector<std::uint8_t> stream = fuzz::rpcStream({data, size});
  rpc::SocketPair sockets = rpc::makeSocketPair(rpc::RemoteEnd::kNonBlocking);
  auto peer = io.lowLevelProvider->wrapSocketFd(kj::AutoCloseFd(sockets.remote.release()));
  NoVm target;
  control::ControlServer server(io, target, log);
  server.serveStarter(std::move(sockets.local));
  kj::byte buffer[4096];
  auto reading = readAll(*peer, kj::arrayPtr(buffer, sizeof buffer)).eagerlyEvaluate([](kj::Exception&&) {});
  auto writing = peer->write(stream.data(), stream.size())
                     .then([&peer]() { peer->shutdownWrite(); })
                     .eagerlyEvaluate([](kj::Exception&&) {});
  // The server ends the connection at its end, or before.
  reading
      .exclusiveJoin(io.provider->getTimer().afterDelay(5 * kj::SECONDS).then([&target]() {
        fuzz::require(target.isGone, "the connection ends when its bytes have ended");
      }))
      .wait(io.waitScope);
  return 0;
}
