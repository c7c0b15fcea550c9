// A machine that plays a guest: its output, what it does with input, its end. No hypervisor, no memory, no threads.
#pragma once

#include <kj/async-io.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "tests/fake/performance.h"
#include "tests/fake/vsock.h"
#include "vmmhost/counters.h"
#include "vmmhost/worker/worker.h"

namespace vmmhost::fake {

// A console besides the first: says which it is, and gives back what it hears.
class FurtherConsole {
 public:
  FurtherConsole(std::uint32_t index, Fd socket, kj::AsyncIoContext& io);
  void say(const std::string& text);  // as far as there is room

 private:
  kj::Promise<void> echo();

  Fd socket_;
  kj::UnixEventPort::FdObserver observer_;
  kj::Promise<void> echoing_ = nullptr;
};

class FakeMachine final : public worker::Machine {
 public:
  struct Parts {
    Performance performance;
    std::map<std::uint32_t, Fd> consoles;
    std::optional<std::uint64_t> balloon;  // its size
    std::unique_ptr<counters::WorkerPage> counters;
    bool hasVsock = false;
  };
  FakeMachine(Parts parts, worker::Events& events, kj::AsyncIoContext& io);
  ~FakeMachine() noexcept override;

  kj::Promise<void> start() override;
  bool canPause() const override { return true; }
  kj::Promise<void> pause() override;
  kj::Promise<void> resume() override;
  // Every guest honours it while it runs on: the machine powers off, as a Linux guest on the qemu backend does after
  // its ACPI button. A guest that is about to end anyway ends in its own way; a paused one powers off when resumed.
  bool hasPowerButton() const override { return true; }
  kj::Promise<void> pressPowerButton() override;
  // The guest gives up at once whatever it is asked for.
  bool hasBalloon() const override { return balloon_.has_value(); }
  kj::Promise<void> setBalloonTarget(std::uint64_t bytes) override;
  kj::Promise<std::uint64_t> balloonActual() override { return *balloon_; }
  bool canResizeConsoles() const override { return true; }
  kj::Promise<void> resizeConsole(std::uint32_t console, std::uint16_t columns,
                                  std::uint16_t rows) override;  // says so
  bool canReset() const override { return true; }
  kj::Promise<void> reset() override;
  bool hasVsock() const override { return vsock_ != nullptr; }
  kj::Promise<void> connectVsock(std::uint32_t port, Fd socket) override;

 private:
  enum class Life { kCreated, kStarted, kEnded };

  void begin();  // the guest, from its first instruction
  kj::Promise<void> say(std::string text);
  kj::Promise<void> goOn();       // after it has said what it says first
  kj::Promise<void> waitToRun();  // while it is paused
  kj::Promise<void> waitForMore();
  void wake();
  kj::Promise<void> watchInput();
  void takeInput();  // as much as a serial port and its buffer hold
  std::string consumeInput();
  void end();
  void requireAlive(const char* operation) const;

  Performance performance_;
  std::optional<std::uint64_t> balloon_;
  Fd console_;
  std::unique_ptr<counters::WorkerPage> counters_;
  std::unique_ptr<FakeVsock> vsock_;
  worker::Events& events_;
  kj::Timer& timer_;
  kj::UnixEventPort::FdObserver observer_;
  Life life_ = Life::kCreated;
  bool paused_ = false;
  std::uint32_t counted_ = 0;
  std::size_t asked_ = 0;  // bytes of input, of a guest that says more for each
  std::size_t saidFurther_ = 0;
  bool pressed_ = false;
  bool inputOpen_ = true;
  std::string input_;
  std::map<std::uint32_t, std::unique_ptr<FurtherConsole>> further_;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> waiting_;  // the guest, for anything to change
  kj::Promise<void> inputTask_ = nullptr;
  kj::Promise<void> guest_ = nullptr;
};

// What both ways to serve the protocol make a machine from. `initrd` and `counters` may be empty. Throws Error.
struct Given {
  Fd kernel;
  Fd initrd;
  std::map<std::uint32_t, Fd> consoles;  // by index
  Fd counters;
};
std::unique_ptr<FakeMachine> makeMachine(schema::VmConfig::Reader config, Given given, worker::Events& events,
                                         kj::AsyncIoContext& io);

}  // namespace vmmhost::fake
