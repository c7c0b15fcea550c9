// A worker that includes the one header of the SDK, lives on what that brings along, and implements every function of its
// interfaces as it was declared.
#include <vmmhost/worker/worker.h>

using namespace vmmhost;

class FullMachine final : public worker::Machine {
 public:
  FullMachine(worker::Resources& resources, worker::Events& events, kj::AsyncIoContext& io)
      : console_(resources.takeConsole(0)),
        counters_(resources.takeCounters()),
        nics_(resources.takeNic(0)),
        ring_(resources.takeRing()),
        events_(events),
        mailbox_(io.unixEventPort) {}
  ~FullMachine() noexcept override {}

  kj::Promise<void> start() override {
    static_cast<void>(!::write(console_.get(), "hello\n", 6));
    Mailbox::Sender sender = events_.sender();
    mailbox_.post([this, sender]() {
      sender.post([this]() { events_.ended(schema::EndCause::POWER_OFF, "said hello"); });
    });
    return kj::READY_NOW;
  }
  bool canPause() const override { return true; }
  kj::Promise<void> pause() override { return kj::READY_NOW; }
  kj::Promise<void> resume() override { return kj::READY_NOW; }
  bool hasPowerButton() const override { return true; }
  kj::Promise<void> pressPowerButton() override { return worker::fail(Error(ErrorCode::kFailedPrecondition, "no")); }
  bool canReset() const override { return true; }
  kj::Promise<void> reset() override {
    events_.resetDone();
    return kj::READY_NOW;
  }
  bool hasBalloon() const override { return true; }
  kj::Promise<void> setBalloonTarget(std::uint64_t bytes) override {
    balloon_ = bytes;
    return kj::READY_NOW;
  }
  kj::Promise<std::uint64_t> balloonActual() override { return balloon_; }
  bool canResizeConsoles() const override { return true; }
  kj::Promise<void> resizeConsole(std::uint32_t console, std::uint16_t columns, std::uint16_t rows) override {
    sizes_[console] = {columns, rows};
    return kj::READY_NOW;
  }
  bool hasVsock() const override { return false; }
  kj::Promise<void> connectVsock(std::uint32_t port, Fd socket) override {
    return events_.services().connectVsock(port).then([socket = std::move(socket)](Fd service) {});
  }

 private:
  Fd console_;
  Fd counters_;
  std::vector<Fd> nics_;
  rings::Ring ring_;
  worker::Events& events_;
  Mailbox mailbox_;
  std::uint64_t balloon_ = 0;
  std::map<std::uint32_t, std::pair<std::uint16_t, std::uint16_t>> sizes_;
};

class FullBackend final : public worker::Backend {
 public:
  std::vector<std::string> features() const override { return {"everything"}; }
  void confine() override { worker::log(worker::LogLevel::kDebug, "confined"); }
  kj::Promise<std::unique_ptr<worker::Machine>> create(schema::VmConfig::Reader config, worker::Resources& resources,
                                                       worker::Events& events, kj::AsyncIoContext& io) override {
    const Fd kernel = resources.takeFile(config.getBoot().getKernel().getResource());
    if (!kernel || resources.takeDevice("none")) {
      throw Error(ErrorCode::kInvalidArgument, "boot.kernel: missing", "give one", true);
    }
    events.guestPanicked("not really");
    events.bootPhase(0x41, 1);
    return std::unique_ptr<worker::Machine>(std::make_unique<FullMachine>(resources, events, io));
  }
};

int main(int argc, char** argv) {
  FullBackend backend;
  worker::ServeOptions options;
  options.rpcDescriptor = 3;
  options.build = "consumer";
  options.arguments = std::span<char* const>(argv, static_cast<std::size_t>(argc));
  return worker::serve(backend, options);
}
