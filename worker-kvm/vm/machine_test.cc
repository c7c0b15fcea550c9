// The machine on an event loop, with a device that does what a test says. Without process, jail or protocol around it.
#include "worker-kvm/vm/machine.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <chrono>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ipc/rpc/connection.h"
#include "tests/support/built.h"
#include "tests/support/refusal.h"
#include "vmmhost/mailbox.h"
#include "worker-kvm/devices/machine_control.h"
#include "worker-kvm/kvm/device.h"
#include "worker-kvm/pci/function.h"
#include "worker-kvm/pci/pvpanic.h"
#include "worker-kvm/vm/platform.h"

namespace vmmhost::kvm::vm {
namespace {

constexpr auto kLimit = std::chrono::seconds(60);

class NoServices final : public worker::Services {
 public:
  kj::Promise<Fd> connectVsock(std::uint32_t) override {
    return worker::fail<Fd>(Error(ErrorCode::kNotFound, "nothing listens"));
  }
};

class SeenEvents final : public worker::Events {
 public:
  explicit SeenEvents(kj::UnixEventPort& port) : mailbox_(port) {}
  ~SeenEvents() noexcept override {}
  void ended(schema::EndCause cause, std::string) override { end = cause; }
  void resetDone() override { ++resets; }
  void guestPanicked(std::string) override {}
  void bootPhase(std::uint8_t, std::uint64_t) override {}
  void diskFull(std::uint32_t disk) override { fullDisks.push_back(disk); }
  Mailbox::Sender sender() const override { return mailbox_.sender(); }
  worker::Services& services() override { return services_; }

  std::optional<schema::EndCause> end;
  int resets = 0;
  std::vector<std::uint32_t> fullDisks;

 private:
  Mailbox mailbox_;
  NoServices services_;
};

// Stops for a reset when it is told to. All of it on the control thread.
class SlowDevice final : public pci::Function {
 public:
  explicit SlowDevice(const Platform& platform)
      : Function({.vendor = 0x1af4, .device = 0x1110, .classCode = 0x088000}),
        machine_(platform.machine),
        wake_(platform.wake) {}

  void beginQuiet() noexcept override { isStopping_ = true; }
  bool isQuiet() const noexcept override { return !isStopping_; }
  std::string takeFault() override {
    ++looks_;
    return {};
  }

  bool isStopping() const { return isStopping_; }
  void stop() {
    isStopping_ = false;
    wake_.signal();
  }
  void end(devices::EndReason reason) { machine_.requestEnd(reason); }
  int looks() const { return looks_; }  // of the control thread at the machine

 private:
  devices::MachineControl& machine_;
  const threads::Wake& wake_;
  bool isStopping_ = false;
  int looks_ = 0;
};

class MachineTest : public testing::Test {
 public:
  ~MachineTest() noexcept override {}  // KJ's members may throw from theirs

 protected:
  void SetUp() override {
    Fd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
    if (!kvm) {
      std::cerr << "\n*** /dev/kvm cannot be opened: NOTHING of the machine is tested here ***\n" << std::endl;
      GTEST_SKIP() << "/dev/kvm cannot be opened";
    }
    Fd kernel(::open(tests::built("guests/loop.elf").c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(kernel);
    Parameters parameters;
    parameters.memoryBytes = 16 << 20;
    parameters.boot.kernel = std::make_unique<boot::FileSource>(std::move(kernel), "kernel");
    parameters.devices.push_back([this](const Platform& platform) {
      auto device = std::make_unique<SlowDevice>(platform);
      slow_ = device.get();
      return MadeDevice{std::move(device), {}};
    });
    for (const auto& controls : controls_) {
      parameters.devices.push_back([&controls](const Platform& platform) {
        return MadeDevice{std::make_unique<pci::Pvpanic>(platform.machine), controls};
      });
    }
    KvmMachine::Parts parts;
    parts.counters = std::make_unique<counters::WorkerPage>();
    {
      const Device device(std::move(kvm));
      parts.machine = std::make_unique<VirtualMachine>(device, std::move(parameters), *parts.counters);
    }
    parts.machine->startThreads([](Vcpu&) { return std::vector<sock_filter>(); }, {});
    machine_ = std::make_unique<KvmMachine>(std::move(parts), events_, io_);
    wait(machine_->whenParked());
    wait(machine_->start());
  }

  void wait(kj::Promise<void> promise) {
    rpc::withDeadline(io_.provider->getTimer(), kLimit, "the machine", kj::mv(promise)).wait(io_.waitScope);
  }
  template <typename Done>
  void waitUntil(Done done) {
    const auto deadline = std::chrono::steady_clock::now() + kLimit;
    while (true) {
      io_.waitScope.poll();
      if (done()) {
        return;
      }
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      io_.provider->getTimer().afterDelay(1 * kj::MILLISECONDS).wait(io_.waitScope);
    }
  }

  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  SeenEvents events_{io_.unixEventPort};
  std::unique_ptr<KvmMachine> machine_;
  SlowDevice* slow_ = nullptr;
  std::vector<DeviceControls> controls_;  // of further devices
};

class MachineWithControlsTest : public MachineTest {
 protected:
  void SetUp() override {
    DeviceControls first;
    first.disks.push_back({3, [] { return false; }});
    DeviceControls second;
    second.setBalloonTarget = [this](std::uint64_t bytes) { balloon_ = bytes; };
    second.connectVsock = [](std::uint32_t, Fd) { throw Error(ErrorCode::kInvalidArgument, "no socket"); };
    DeviceControls third;
    third.disks.push_back({7, [this] { return std::exchange(isFull_, false); }});
    controls_ = {first, second, third};
    MachineTest::SetUp();
  }

  bool isFull_ = false;
  std::uint64_t balloon_ = 0;
};

// Its timer runs until the machine is put back, which comes after what takes long.
TEST_F(MachineTest, watchdogThatRunsOutDuringAReset_endsNothing) {
  auto reset = machine_->reset();
  waitUntil([this] { return slow_->isStopping(); });
  const int looks = slow_->looks();
  slow_->end(devices::EndReason::kWatchdog);
  waitUntil([&] { return slow_->looks() > looks; });
  slow_->stop();
  wait(kj::mv(reset));
  EXPECT_EQ(events_.resets, 1);
  EXPECT_FALSE(events_.end);
  wait(machine_->pause());  // it lives
}

TEST_F(MachineWithControlsTest, controlsOfEachDevice_areTheMachines) {
  EXPECT_TRUE(machine_->hasBalloon());
  EXPECT_TRUE(machine_->hasVsock());
  EXPECT_FALSE(machine_->canResizeConsoles());
  wait(machine_->setBalloonTarget(4096));
  EXPECT_EQ(balloon_, 4096U);
  tests::expectRefusal("no socket", [this] { wait(machine_->connectVsock(1, Fd())); });
}

TEST_F(MachineWithControlsTest, diskWithoutRoom_isToldByItsNumber) {
  isFull_ = true;
  slow_->stop();  // wakes the control thread
  waitUntil([this] { return !events_.fullDisks.empty(); });
  EXPECT_EQ(events_.fullDisks, std::vector<std::uint32_t>{7});
}

TEST_F(MachineTest, watchdogThatRunsOut_endsTheMachine) {
  slow_->end(devices::EndReason::kWatchdog);
  waitUntil([this] { return events_.end.has_value(); });
  EXPECT_EQ(events_.end, schema::EndCause::WATCHDOG);
}

}  // namespace
}  // namespace vmmhost::kvm::vm
