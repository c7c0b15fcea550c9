// A host's bytes on a worker's connection: the SDK, and what the kvm worker makes of a configuration in `create`.
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "ipc/rpc/connection.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/rpc_input.h"
#include "vmmhost/worker/worker.h"
#include "worker-kvm/config/check.h"

using namespace vmmhost;

namespace {

class NoMachine final : public worker::Machine {
 public:
  explicit NoMachine(worker::Events& events) : events_(events) {}
  kj::Promise<void> start() override {
    events_.ended(schema::EndCause::POWER_OFF, "nothing to do");
    return kj::READY_NOW;
  }
  bool canPause() const override { return true; }
  bool canReset() const override { return true; }
  bool hasPowerButton() const override { return true; }

 private:
  worker::Events& events_;
};

class CheckingBackend final : public worker::Backend {
 public:
  kj::Promise<std::unique_ptr<worker::Machine>> create(schema::VmConfig::Reader config, worker::Resources& resources,
                                                       worker::Events& events, kj::AsyncIoContext&) override {
    kvm::config::check(config);
    resources.takeFile(config.getBoot().getKernel().getResource());
    return std::unique_ptr<worker::Machine>(std::make_unique<NoMachine>(events));
  }
};

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::vector<std::uint8_t> stream = fuzz::rpcStream({data, std::min<std::size_t>(size, 64 * 1024)});
  rpc::SocketPair sockets = rpc::makeSocketPair(rpc::RemoteEnd::kNonBlocking);
  // The whole of it fits into the socket's buffer; the answers of so few messages do too.
  fuzz::require(
      ::send(sockets.local.get(), stream.data(), stream.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(stream.size()),
      "the socket takes an input whole");
  ::shutdown(sockets.local.get(), SHUT_WR);
  CheckingBackend backend;
  worker::ServeOptions options;
  options.rpcDescriptor = sockets.remote.release();
  worker::serve(backend, options);
  return 0;
}
