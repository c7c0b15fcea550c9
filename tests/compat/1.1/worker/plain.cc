// The worker of the plain backend: takes what its launch plan asked for, says what it got, and powers off.
#include <sys/stat.h>
#include <unistd.h>
#include <vmmhost/worker/worker.h>

#include <string>
#include <utility>

namespace {

using namespace vmmhost;

class PlainMachine final : public worker::Machine {
 public:
  PlainMachine(Fd console, std::string says, worker::Events& events)
      : console_(std::move(console)), says_(std::move(says)), events_(events) {}
  kj::Promise<void> start() override {
    static_cast<void>(!::write(console_.get(), says_.data(), says_.size()));
    events_.bootPhase(0x41, 1);
    events_.ended(schema::EndCause::POWER_OFF, "said it");
    return kj::READY_NOW;
  }

 private:
  Fd console_;
  std::string says_;
  worker::Events& events_;
};

class PlainBackend final : public worker::Backend {
 public:
  explicit PlainBackend(std::string argument) : argument_(std::move(argument)) {}
  std::vector<std::string> features() const override { return {"plain"}; }
  kj::Promise<std::unique_ptr<worker::Machine>> create(schema::VmConfig::Reader config, worker::Resources& resources,
                                                       worker::Events& events, kj::AsyncIoContext&) override {
    struct stat null = {};
    const Fd device = resources.takeDevice("null");
    const bool isDevice = ::fstat(device.get(), &null) == 0 && S_ISCHR(null.st_mode);
    const bool hasRings = resources.takeRing().descriptor && resources.takeRing().descriptor;
    const Fd kernel = resources.takeFile(config.getBoot().getKernel().getResource());
    std::string says = argument_ + ": name " + config.getName().cStr() + ", cmdline " +
                       config.getBoot().getCmdline().cStr() + ", memory " +
                       std::to_string(config.getMemory().getSize()) + (kernel ? ", kernel" : "") +
                       (isDevice ? ", device" : "") + (resources.takeDevice("absent") ? ", absent device" : "") +
                       (resources.takeCounters() ? ", counters" : "") + (hasRings ? ", rings" : "") + "\n";
    worker::log(worker::LogLevel::kInfo, "the plain worker was here");
    return std::unique_ptr<worker::Machine>(
        std::make_unique<PlainMachine>(resources.takeConsole(0), std::move(says), events));
  }

 private:
  std::string argument_;
};

}  // namespace

int main(int argc, char** argv) {
  PlainBackend backend(argc > 1 ? argv[1] : "nothing");
  worker::ServeOptions options;
  options.build = "plain";
  options.arguments = {argv, static_cast<std::size_t>(argc)};
  return worker::serve(backend, options);
}
