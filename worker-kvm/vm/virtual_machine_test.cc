// Runs the bare-metal guests of tests/guests on the real /dev/kvm, without process, jail or protocol around them.
#include "worker-kvm/vm/virtual_machine.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <chrono>
#include <filesystem>
#include <iostream>
#include <iterator>

#include "tests/support/built.h"
#include "tests/support/refusal.h"
#include "vmmhost/memory_file.h"
#include "worker-kvm/pci/watchdog.h"

namespace vmmhost::kvm::vm {
namespace {

using namespace std::chrono_literals;

class VirtualMachineTest : public testing::Test {
 protected:
  void SetUp() override {
    const int fd = ::open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
      std::cerr << "\n*** /dev/kvm cannot be opened: NOTHING of the virtual machine is tested here ***\n" << std::endl;
      GTEST_SKIP() << "/dev/kvm cannot be opened";
    }
    device_.emplace(Fd(fd));
  }

  static std::unique_ptr<boot::FileSource> open(const std::string& path, std::string name) {
    Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    EXPECT_TRUE(file) << path;
    return std::make_unique<boot::FileSource>(std::move(file), std::move(name));
  }

  Parameters parametersFor(const std::string& guest) {
    Parameters parameters;
    parameters.memoryBytes = 16 << 20;
    parameters.boot.kernel = open(tests::built("guests/" + guest + ".elf"), "kernel");
    return parameters;
  }

  void create(const std::string& guest) { create(parametersFor(guest)); }
  void create(Parameters parameters) {
    machine_ = std::make_unique<VirtualMachine>(*device_, std::move(parameters), counters_);
    machine_->startThreads([](Vcpu&) { return std::vector<sock_filter>(); }, {});
    waitUntil([this] { return machine_->allParked(); });
  }

  // Takes output and waits for wake-ups until `done` or a minute has gone.
  template <typename Done>
  void waitUntil(Done done) {
    const auto deadline = std::chrono::steady_clock::now() + 60s;
    while (true) {
      takeOutput();
      if (done()) {
        return;
      }
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      pollfd poll{machine_->wake().descriptor(), POLLIN, 0};
      ASSERT_GT(::poll(&poll, 1, static_cast<int>(std::max<std::int64_t>(left.count(), 0))), 0)
          << "output so far: " << output_;
      machine_->wake().drain();
    }
  }
  void takeOutput() {
    std::array<std::uint8_t, 512> buffer;
    while (const std::size_t count = machine_->serial().takeOutput(buffer)) {
      output_.append(buffer.begin(), buffer.begin() + count);
    }
  }
  void waitForOutput(const std::string& text) {
    waitUntil([&] { return output_.find(text) != std::string::npos; });
  }
  void park() {
    machine_->park();
    waitUntil([this] { return machine_->allParked(); });
  }
  void reset() {
    machine_->beginLoad();
    waitUntil([this] { return machine_->isLoaded(); });
    machine_->reset();
  }
  EndReport runToEnd() {
    machine_->run();
    waitUntil([this] { return machine_->ended().has_value(); });
    park();
    takeOutput();
    return machine_->ended().value_or(EndReport{});
  }
  void type(std::string_view text) {
    const std::span<const std::uint8_t> bytes(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
    std::size_t done = 0;
    waitUntil([&] {
      done += machine_->serial().offerInput(bytes.subspan(done));
      return done == bytes.size();
    });
  }

  std::optional<Device> device_;
  counters::WorkerPage counters_;
  std::unique_ptr<VirtualMachine> machine_;
  std::string output_;
};

// What the guest flood says.
std::string floodText() {
  std::string text;
  for (unsigned line = 0; line < 512; ++line) {
    char number[16];
    std::snprintf(number, sizeof number, "%08x", line);
    text += number + std::string(" the quick brown fox jumps over the lazy dog 0123456789\n");
  }
  return text;
}

TEST_F(VirtualMachineTest, poweroffGuest_endsByPowerOff) {
  create("poweroff");
  EXPECT_EQ(runToEnd().cause, EndCause::kPowerOff);
  EXPECT_EQ(output_, "");
}

TEST_F(VirtualMachineTest, createdMachine_runsNothingBeforeItIsTold) {
  create("hello");
  EXPECT_FALSE(machine_->ended());
  EXPECT_EQ(output_, "");
  EXPECT_EQ(counters_.read(counters::Cell::kVcpuExits), 0U);
}

TEST_F(VirtualMachineTest, helloGuest_isHeardOnTheSerialPort) {
  create("hello");
  EXPECT_EQ(runToEnd().cause, EndCause::kPowerOff);
  EXPECT_EQ(output_, "hello from the guest\ngood bye\n");
}

TEST_F(VirtualMachineTest, resetGuest_endsByReset) {
  create("reset");
  EXPECT_EQ(runToEnd().cause, EndCause::kReset);
}

TEST_F(VirtualMachineTest, jumpToTheResetVector_endsByReset) {
  create("reset_vector");
  EXPECT_EQ(runToEnd().cause, EndCause::kReset);
}

TEST_F(VirtualMachineTest, tripleFault_isToldApartFromReset) {
  create("triple_fault");
  const EndReport report = runToEnd();
  EXPECT_EQ(report.cause, EndCause::kTripleFault);
  EXPECT_NE(machine_->describe(report).find("RIP 0x"), std::string::npos);
}

TEST_F(VirtualMachineTest, guestThatLeavesMemory_endsAsCrashThatNamesTheError) {
  create("internal_error");
  const EndReport report = runToEnd();
  EXPECT_EQ(report.cause, EndCause::kCrash);
  const std::string text = machine_->describe(report);
  EXPECT_NE(text.find("KVM internal error, suberror"), std::string::npos) << text;
  EXPECT_NE(text.find("RIP 0xd0000000"), std::string::npos) << text;
}

TEST_F(VirtualMachineTest, input_isEchoedInOrder) {
  create("serial_echo");
  machine_->run();
  waitForOutput("echo ready\n");
  std::string text;
  for (int number = 0; number < 40; ++number) {
    text += "line " + std::to_string(number) + "\n";
  }
  type(text);
  waitForOutput("line 39\n");
  EXPECT_EQ(output_, "echo ready\n" + text);
  type("\x04");
  EXPECT_EQ(runToEnd().cause, EndCause::kPowerOff);
  EXPECT_EQ(output_, "echo ready\n" + text + "echo done\n");
}

TEST_F(VirtualMachineTest, parkedMachine_doesNothingUntilItRunsAgain) {
  create("serial_echo");
  machine_->run();
  waitForOutput("echo ready\n");
  park();
  output_.clear();
  type("x");
  // A virtual CPU that ran would poll the port, and take what was typed: without a FIFO there is room for one byte.
  const std::uint64_t exits = counters_.read(counters::Cell::kVcpuExits);
  park();
  EXPECT_EQ(counters_.read(counters::Cell::kVcpuExits), exits);
  constexpr std::array<std::uint8_t, 1> kMore = {'y'};
  EXPECT_EQ(machine_->serial().offerInput(kMore), 0U);
  EXPECT_EQ(output_, "");
  EXPECT_TRUE(machine_->allParked());
  machine_->run();
  waitForOutput("x");
  type("\x04");
  EXPECT_EQ(runToEnd().cause, EndCause::kPowerOff);
}

TEST_F(VirtualMachineTest, endlessLoop_canBeParkedAgainAndAgain) {
  create("loop");
  machine_->run();
  waitForOutput("looping\n");
  for (int round = 0; round < 200; ++round) {
    park();
    ASSERT_TRUE(machine_->allParked());
    machine_->run();
  }
  EXPECT_FALSE(machine_->ended());
}

TEST_F(VirtualMachineTest, endlessLoop_doesNotOutliveTheMachine) {
  const auto threads = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/task"), std::filesystem::directory_iterator());
  };
  const auto before = threads();
  create("loop");
  EXPECT_GT(threads(), before);
  machine_->run();
  waitForOutput("looping\n");
  machine_.reset();  // joins the thread
  EXPECT_EQ(threads(), before);
}

TEST_F(VirtualMachineTest, reset_startsTheGuestFromTheBeginning) {
  create("serial_echo");
  machine_->run();
  waitForOutput("echo ready\n");
  for (int round = 0; round < 3; ++round) {
    park();
    takeOutput();
    output_.clear();
    reset();
    EXPECT_EQ(output_, "");
    machine_->run();
    waitForOutput("echo ready\n");
  }
  type("\x04");
  EXPECT_EQ(runToEnd().cause, EndCause::kPowerOff);
}

TEST_F(VirtualMachineTest, reset_restoresWhatTheGuestWroteOver) {
  // memory_touch writes over everything above 2 MiB and runs from its own, unchanged image: twice the same.
  create("memory_touch");
  EXPECT_EQ(runToEnd().cause, EndCause::kPowerOff);
  const std::string first = output_;
  EXPECT_EQ(first, "touched 14336 KiB\n");
  output_.clear();
  reset();
  EXPECT_FALSE(machine_->ended());
  EXPECT_EQ(runToEnd().cause, EndCause::kPowerOff);
  EXPECT_EQ(output_, first);
}

TEST_F(VirtualMachineTest, unansweredPorts_readAllOnesAndAreCounted) {
  create("port_io");
  EXPECT_EQ(runToEnd().cause, EndCause::kPowerOff);
  EXPECT_EQ(output_, "port 000000ff\nport 0000ffff\nport ffffffff\nport writes done\n");
  EXPECT_EQ(counters_.read(counters::Cell::kUnknownPortReads), 3U);
  EXPECT_EQ(counters_.read(counters::Cell::kUnknownPortWrites), 3U);
}

TEST_F(VirtualMachineTest, unansweredMemory_readsAllOnes) {
  create("memory_io");
  EXPECT_EQ(runToEnd().cause, EndCause::kPowerOff);
  EXPECT_EQ(output_, "mmio 000000ff\nmmio 0000ffff\nmmio ffffffff\nmmio writes done\n");
  EXPECT_EQ(counters_.read(counters::Cell::kMmioExits), 6U);
}

TEST_F(VirtualMachineTest, sharedMemory_worksAsPrivateMemoryDoes) {
  Parameters parameters = parametersFor("memory_touch");
  parameters.memoryFile = makeMemoryFile("test", parameters.memoryBytes);
  create(std::move(parameters));
  EXPECT_EQ(runToEnd().cause, EndCause::kPowerOff);
  EXPECT_EQ(output_, "touched 14336 KiB\n");
}

TEST_F(VirtualMachineTest, memoryBeyondTheDeviceGap_isThereAndInTheMap) {
  Parameters parameters = parametersFor("hello");
  parameters.memoryBytes = std::uint64_t{5} << 30;  // not reserved: costs nothing
  create(std::move(parameters));
  ASSERT_EQ(machine_->memory().regions().size(), 2U);
  EXPECT_EQ(machine_->memory().regions()[1].guest, (memory::Range{std::uint64_t{4} << 30, std::uint64_t{2} << 30}));
  EXPECT_EQ(runToEnd().cause, EndCause::kPowerOff);
}

TEST_F(VirtualMachineTest, commandLine_reachesTheGuest) {
  Parameters parameters = parametersFor("cmdline");
  parameters.boot.commandLine = "console=ttyS0 quiet answer=42";
  create(std::move(parameters));
  EXPECT_EQ(runToEnd().cause, EndCause::kPowerOff);
  EXPECT_EQ(output_, "cmdline: console=ttyS0 quiet answer=42\n");
}

TEST_F(VirtualMachineTest, initrd_reachesTheGuest) {
  Parameters parameters = parametersFor("modules");
  parameters.boot.initrd = open(tests::built("guests/poweroff.elf"), "initrd");
  std::vector<std::uint8_t> bytes(parameters.boot.initrd->bytes());
  ASSERT_EQ(parameters.boot.initrd->read(0, bytes), bytes.size());
  std::uint32_t sum = 0;
  for (std::size_t index = 0; index < std::min<std::size_t>(bytes.size(), 4096); ++index) {
    sum += bytes[index];
  }
  create(std::move(parameters));
  EXPECT_EQ(runToEnd().cause, EndCause::kPowerOff);
  EXPECT_EQ(output_,
            "modules 1, first has " + std::to_string(bytes.size()) + " bytes, sum " + std::to_string(sum) + "\n");
}

TEST_F(VirtualMachineTest, withoutInitrd_thereAreNoModules) {
  create("modules");
  EXPECT_EQ(runToEnd().cause, EndCause::kPowerOff);
  EXPECT_EQ(output_, "modules 0\n");
}

TEST_F(VirtualMachineTest, floodOfOutput_arrivesWholeThroughASmallBuffer) {
  create("flood");
  EXPECT_EQ(runToEnd().cause, EndCause::kPowerOff);
  EXPECT_EQ(output_, floodText());
}

TEST_F(VirtualMachineTest, parkingInTheMiddleOfStringOutput_losesNothing) {
  create("flood");
  machine_->run();
  for (std::size_t step = 1; step <= 60; ++step) {
    waitUntil([&] { return output_.size() >= step * 500 + step % 16; });
    park();
    machine_->run();
  }
  EXPECT_EQ(runToEnd().cause, EndCause::kPowerOff);
  EXPECT_EQ(output_, floodText());
}

TEST_F(VirtualMachineTest, floodThatNobodyReads_canStillBeParked) {
  create("flood");
  machine_->wake().drain();
  machine_->run();
  // Nothing is taken: the guest comes to poll a transmitter that stays full.
  pollfd poll{machine_->wake().descriptor(), POLLIN, 0};
  ASSERT_GT(::poll(&poll, 1, 60'000), 0);
  machine_->park();
  while (!machine_->allParked()) {
    machine_->wake().drain();
    if (!machine_->allParked()) {
      ASSERT_GT(::poll(&poll, 1, 60'000), 0);
    }
  }
  EXPECT_FALSE(machine_->ended());
}

TEST_F(VirtualMachineTest, manyProcessors_othersWaitAndAllPark) {
  Parameters parameters = parametersFor("hello");
  parameters.cpus = 4;
  create(std::move(parameters));
  EXPECT_EQ(runToEnd().cause, EndCause::kPowerOff);
  EXPECT_EQ(output_, "hello from the guest\ngood bye\n");
}

TEST_F(VirtualMachineTest, fullIrqchip_bootsAndResets) {
  Parameters parameters = parametersFor("hello");
  parameters.irqchip = IrqchipMode::kFull;
  create(std::move(parameters));
  EXPECT_EQ(runToEnd().cause, EndCause::kPowerOff);
  reset();
  output_.clear();
  EXPECT_EQ(runToEnd().cause, EndCause::kPowerOff);
  EXPECT_EQ(output_, "hello from the guest\ngood bye\n");
}

// The thread that quiet devices share has not started then, and one of them had begun to use it.
TEST_F(VirtualMachineTest, deviceThatCannotBeMade_isReportedAndNotWaitedFor) {
  Parameters parameters = parametersFor("poweroff");
  const auto watchdog = [](const Platform& platform) {
    io::EventThread& thread = platform.sharedThread(pci::Watchdog::rules());
    return MadeDevice{std::make_unique<pci::Watchdog>(platform.machine, platform.calls, thread), {}};
  };
  parameters.devices.emplace_back(watchdog);
  parameters.devices.emplace_back([watchdog](const Platform& platform) -> MadeDevice {
    const MadeDevice made = watchdog(platform);
    throw Error(ErrorCode::kInternal, "no such device");
  });
  tests::expectRefusal("no such device", [&] { create(std::move(parameters)); });
}

TEST_F(VirtualMachineTest, kernelThatIsTooLargeForMemory_isRefusedByName) {
  Parameters parameters = parametersFor("hello");
  parameters.memoryBytes = 1 << 20;  // ends where kernels begin
  try {
    create(std::move(parameters));
    FAIL() << "was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(error.message().find("boot.kernel: segment 0"), std::string::npos) << error.message();
  }
}

}  // namespace
}  // namespace vmmhost::kvm::vm
