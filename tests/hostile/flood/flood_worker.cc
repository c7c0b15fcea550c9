// flood-worker FLOOD MILLISECONDS: a worker that speaks the protocol until its guest runs, and then floods its host for
// so long: by a flood of floods.h on the protocol's connection, "log", "console", "events", "panics" or "panic-storm".
// "events" are kManyEvents, and then the guest's end. "calm" does nothing but pause and resume when it is asked to, and
// counts its time.
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <string_view>
#include <thread>

#include "tests/hostile/flood/floods.h"
#include "vmmhost/counters.h"
#include "vmmhost/worker/worker.h"

#ifdef VMMHOST_SANITIZED
// The search for leaks starts a process, which the jail refuses.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() {
  return "detect_leaks=0";
}
#endif

namespace vmmhost::hostile {
namespace {

constexpr int kRpcDescriptor = 3;
constexpr int kLogDescriptor = 2;
constexpr std::uint64_t kManyEvents = 20'000;

std::string_view orders;
std::chrono::milliseconds floodTime{0};

void writeWithoutEnd(int descriptor) {
  std::array<char, 65536> text;
  text.fill('x');
  for (std::size_t i = 100; i < text.size(); i += 100) {
    text[i] = '\n';
  }
  const auto end = Clock::now() + floodTime;
  while (Clock::now() < end) {
    if (::write(descriptor, text.data(), text.size()) < 0 && errno == EAGAIN) {
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  }
}

class FloodMachine final : public worker::Machine {
 public:
  FloodMachine(worker::Events& events, kj::Timer& timer, Fd counters, Fd console)
      : events_(events), timer_(timer), counters_(std::move(counters)), console_(std::move(console)) {}
  ~FloodMachine() noexcept override {}

  kj::Promise<void> start() override {
    ticks_ = tick().eagerlyEvaluate(nullptr);
    if (orders != "calm") {
      // Behind the answer to start.
      events_.sender().post([this] { flood(); });
    }
    return kj::READY_NOW;
  }
  bool canPause() const override { return true; }

 private:
  kj::Promise<void> tick() {
    counters_.add(counters::Cell::kVcpuExits);
    return timer_.afterDelay(1 * kj::MILLISECONDS).then([this]() { return tick(); });
  }

  // As a guest has its worker do it that writes to a port again and again.
  kj::Promise<void> sendEvents(bool arePanics, std::uint64_t sent) {
    if (!arePanics && sent >= kManyEvents) {
      events_.ended(schema::EndCause::POWER_OFF, "after many events");
      return kj::READY_NOW;
    }
    for (unsigned i = 0; i < 16; ++i, ++sent) {
      if (arePanics) {
        events_.guestPanicked("again");
      } else {
        events_.bootPhase(static_cast<std::uint8_t>(i), sent);
      }
    }
    return timer_.afterDelay(1 * kj::MILLISECONDS).then([this, arePanics, sent]() {
      return sendEvents(arePanics, sent);
    });
  }

  void flood() {
    if (orders == "log") {
      writeWithoutEnd(kLogDescriptor);
    } else if (orders == "console") {
      writeWithoutEnd(console_.get());
    } else if (orders == "events" || orders == "panic-storm") {
      eventTask_ = sendEvents(orders == "panic-storm", 0).eagerlyEvaluate(nullptr);
    } else if (orders == "panics") {
      for (unsigned i = 0; i < 5000; ++i) {
        events_.guestPanicked(std::string(4096, '\x1b'));
      }
    } else if (const Flood* flood = findFlood(orders)) {
      Wire wire(kRpcDescriptor, Clock::now() + floodTime);
      flood->run(wire, workerDoor());
      // The SDK knows nothing of what was said here and must not go on: the host ends this process.
      Wire(kRpcDescriptor, Clock::time_point::max()).rest();
    }
  }

  worker::Events& events_;
  kj::Timer& timer_;
  counters::WorkerPage counters_;
  Fd console_;
  kj::Promise<void> ticks_ = nullptr;
  kj::Promise<void> eventTask_ = nullptr;
};

class FloodBackend final : public worker::Backend {
 public:
  kj::Promise<std::unique_ptr<worker::Machine>> create(schema::VmConfig::Reader, worker::Resources& resources,
                                                       worker::Events& events, kj::AsyncIoContext& io) override {
    return std::unique_ptr<worker::Machine>(std::make_unique<FloodMachine>(
        events, io.provider->getTimer(), resources.takeCounters(), resources.takeConsole(0)));
  }
};

}  // namespace
}  // namespace vmmhost::hostile

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  vmmhost::hostile::orders = argc > 1 ? argv[1] : "calm";
  vmmhost::hostile::floodTime = std::chrono::milliseconds(argc > 2 ? std::atoi(argv[2]) : 0);
  vmmhost::hostile::FloodBackend backend;
  vmmhost::worker::ServeOptions options;
  options.arguments = {argv, static_cast<std::size_t>(argc)};
  return vmmhost::worker::serve(backend, options);
}
