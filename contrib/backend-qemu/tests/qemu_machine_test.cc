// Real QEMU processes carrying guests of a few instructions.
#include "worker/qemu_machine.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <stdexcept>

#include "tests/tiny_guest.h"

namespace qemubackend {
namespace {

using namespace std::chrono_literals;
using vmmhost::Fd;
using vmmhost::schema::EndCause;

class RecordedEvents final : public vmmhost::worker::Events {
 public:
  ~RecordedEvents() noexcept override {}
  void ended(EndCause cause, std::string detail) override {
    ++endings;
    end = Outcome{cause, std::move(detail)};
    ended_.fulfiller->fulfill();
  }
  void resetDone() override { ++resets; }
  void guestPanicked(std::string) override {}
  void bootPhase(std::uint8_t, std::uint64_t) override {}
  vmmhost::Mailbox::Sender sender() const override { throw std::logic_error("the machine has no other threads"); }
  vmmhost::worker::Services& services() override { throw std::logic_error("the machine asks for nothing"); }
  kj::Promise<void> whenEnded() { return kj::mv(ended_.promise); }

  int endings = 0;
  int resets = 0;
  std::optional<Outcome> end;

 private:
  kj::PromiseFulfillerPair<void> ended_ = kj::newPromiseAndFulfiller<void>();
};

std::size_t openDescriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

class QemuMachineTest : public testing::Test {
 protected:
  QemuMachineTest() : io_(kj::setupAsyncIo()) {
    spec_.memoryBytes = std::uint64_t{32} << 20;
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
      throw vmmhost::systemError("socketpair", errno);
    }
    files_.consoles.emplace_back(ends[1]);
    console_ = io_.lowLevelProvider->wrapSocketFd(ends[0], kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP |
                                                               kj::LowLevelAsyncIoProvider::ALREADY_CLOEXEC |
                                                               kj::LowLevelAsyncIoProvider::ALREADY_NONBLOCK);
  }

  ~QemuMachineTest() noexcept override {}

  std::unique_ptr<QemuMachine> launch() {
    return QemuMachine::launch(spec_, std::move(files_), options_, events_, io_).wait(io_.waitScope);
  }
  void boot(std::initializer_list<test::Code> pieces) {
    files_.kernel = test::guestFile(pieces);
    machine_ = launch();
    machine_->start().wait(io_.waitScope);
  }
  // The message of what a launch is rejected with.
  std::string launchFailure() {
    try {
      launch();
    } catch (const kj::Exception& why) {
      return why.getDescription().cStr();
    } catch (const vmmhost::Error& why) {
      return why.message();
    }
    return "it started";
  }
  // Reads until the console has said `text`, or nothing more will come.
  std::string readUntil(const std::string& text) {
    while (said_.find(text) == std::string::npos) {
      char buffer[256];
      const std::size_t count = console_->tryRead(buffer, 1, sizeof(buffer)).wait(io_.waitScope);
      if (count == 0) {
        break;
      }
      said_.append(buffer, count);
    }
    return said_;
  }
  // The promise is rejected since the VM has ended.
  template <typename Promise>
  void expectGone(Promise promise) {
    try {
      promise.wait(io_.waitScope);
      ADD_FAILURE() << "was done";
    } catch (const kj::Exception& why) {
      EXPECT_NE(std::string(why.getDescription().cStr()).find("the VM has ended"), std::string::npos)
          << why.getDescription().cStr();
    }
  }
  EndCause awaitEnd() {
    events_.whenEnded().wait(io_.waitScope);
    return events_.end->cause;
  }

  kj::AsyncIoContext io_;
  RecordedEvents events_;
  MachineSpec spec_;
  MachineFiles files_;
  QemuOptions options_;
  kj::Own<kj::AsyncIoStream> console_;
  std::string said_;
  std::unique_ptr<QemuMachine> machine_;
};

TEST_F(QemuMachineTest, powerOff_isReportedOnceAndTheProcessIsGone) {
  boot({test::print("hello\n"), test::powerOff()});
  EXPECT_EQ(readUntil("hello\n"), "hello\n");
  EXPECT_EQ(awaitEnd(), EndCause::POWER_OFF);
  EXPECT_EQ(events_.endings, 1);
  EXPECT_LT(machine_->qemuPid(), 0);
  machine_.reset();
  EXPECT_EQ(events_.endings, 1);
}

TEST_F(QemuMachineTest, resetRequest_endsTheMachine) {
  boot({test::resetRequest()});
  EXPECT_EQ(awaitEnd(), EndCause::RESET);
}

TEST_F(QemuMachineTest, tripleFault_looksLikeAResetRequest) {
  boot({test::tripleFault()});
  EXPECT_EQ(awaitEnd(), EndCause::RESET);
}

TEST_F(QemuMachineTest, panicDevice_endsTheMachineAsPanic) {
  boot({test::panic()});
  EXPECT_EQ(awaitEnd(), EndCause::PANIC);
}

TEST_F(QemuMachineTest, nothingRunsBeforeStart) {
  files_.kernel = test::guestFile({test::print("x"), test::loopForever()});
  machine_ = launch();
  machine_->pause().wait(io_.waitScope);
  char byte;
  auto read = console_->tryRead(&byte, 1, 1);
  EXPECT_FALSE(read.poll(io_.waitScope));
  machine_->start().wait(io_.waitScope);
  EXPECT_EQ(read.wait(io_.waitScope), 1u);
  machine_->resume().wait(io_.waitScope);
}

TEST_F(QemuMachineTest, serialInput_reachesTheGuest) {
  boot({test::print(">"), test::echoUntil('q'), test::powerOff()});
  readUntil(">");
  console_->write("ping-q", 6).wait(io_.waitScope);
  EXPECT_EQ(readUntil("q"), ">ping-q");
  EXPECT_EQ(awaitEnd(), EndCause::POWER_OFF);
}

TEST_F(QemuMachineTest, pause_holdsTheGuestUntilResume) {
  boot({test::print(">"), test::echoUntil('q'), test::powerOff()});
  readUntil(">");
  machine_->pause().wait(io_.waitScope);
  machine_->pause().wait(io_.waitScope);
  console_->write("q", 1).wait(io_.waitScope);
  char byte;
  auto read = console_->tryRead(&byte, 1, 1);
  // Two commands to QEMU and back: a running guest would have answered.
  machine_->pause().wait(io_.waitScope);
  EXPECT_FALSE(read.poll(io_.waitScope));
  machine_->resume().wait(io_.waitScope);
  EXPECT_EQ(read.wait(io_.waitScope), 1u);
  EXPECT_EQ(byte, 'q');
  EXPECT_EQ(awaitEnd(), EndCause::POWER_OFF);
}

TEST_F(QemuMachineTest, powerButton_reachesTheGuest) {
  boot({test::awaitPowerButton(), test::print("pressed"), test::powerOff()});
  // The guest may not have armed the button yet: pressed again until it has ended.
  auto end = events_.whenEnded().then([]() { return true; });
  bool ended = false;
  while (!ended) {
    try {
      machine_->pressPowerButton().wait(io_.waitScope);
    } catch (const kj::Exception&) {
      break;  // ended meanwhile
    }
    ended = end.poll(io_.waitScope);
  }
  EXPECT_TRUE(end.wait(io_.waitScope));
  EXPECT_EQ(events_.end->cause, EndCause::POWER_OFF);
}

TEST_F(QemuMachineTest, reset_startsTheGuestAgainAndAGuestsOwnResetStillEnds) {
  boot({test::print("boot."), test::echoUntil('q'), test::resetRequest()});
  readUntil("boot.");
  machine_->reset().wait(io_.waitScope);
  EXPECT_EQ(readUntil("boot.boot."), "boot.boot.");
  EXPECT_EQ(events_.resets, 1);
  machine_->reset().wait(io_.waitScope);
  EXPECT_EQ(readUntil("boot.boot.boot."), "boot.boot.boot.");
  console_->write("q", 1).wait(io_.waitScope);
  EXPECT_EQ(awaitEnd(), EndCause::RESET);
}

TEST_F(QemuMachineTest, resetWhilePaused_staysPaused) {
  boot({test::print("boot."), test::loopForever()});
  readUntil("boot.");
  machine_->pause().wait(io_.waitScope);
  machine_->reset().wait(io_.waitScope);
  machine_->pause().wait(io_.waitScope);
  char buffer[16];
  auto read = console_->tryRead(buffer, 5, sizeof(buffer));
  EXPECT_FALSE(read.poll(io_.waitScope));
  machine_->resume().wait(io_.waitScope);
  EXPECT_EQ(read.wait(io_.waitScope), 5u);
}

TEST_F(QemuMachineTest, requestsAfterTheEnd_areRefused) {
  boot({test::powerOff()});
  EXPECT_EQ(awaitEnd(), EndCause::POWER_OFF);
  expectGone(machine_->pause());
  expectGone(machine_->resume());
  expectGone(machine_->reset());
  expectGone(machine_->pressPowerButton());
}

TEST_F(QemuMachineTest, killedQemu_isAFaultThatNamesTheSignal) {
  boot({test::loopForever()});
  ::kill(machine_->qemuPid(), SIGKILL);
  EXPECT_EQ(awaitEnd(), EndCause::WORKER_FAULT);
  EXPECT_NE(events_.end->detail.find("SIGKILL"), std::string::npos) << events_.end->detail;
}

TEST_F(QemuMachineTest, abortedQemu_isAFault) {
  boot({test::loopForever()});
  ::kill(machine_->qemuPid(), SIGABRT);
  EXPECT_EQ(awaitEnd(), EndCause::WORKER_FAULT);
  EXPECT_NE(events_.end->detail.find("SIGABRT"), std::string::npos) << events_.end->detail;
}

TEST_F(QemuMachineTest, refusedArgument_isToldWithQemusOwnWords) {
  files_.kernel = test::guestFile({test::powerOff()});
  options_.extraArguments = {"-device", "no-such-device"};
  const std::string message = launchFailure();
  EXPECT_NE(message.find("no-such-device"), std::string::npos) << message;
  EXPECT_EQ(events_.endings, 0);
}

TEST_F(QemuMachineTest, missingProgram_isNamed) {
  files_.kernel = test::guestFile({test::powerOff()});
  options_.program = "/usr/bin/no-such-qemu";
  const std::string message = launchFailure();
  EXPECT_NE(message.find("/usr/bin/no-such-qemu: No such file"), std::string::npos) << message;
}

TEST_F(QemuMachineTest, kernelWithoutPvhNote_isNamed) {
  files_.kernel = test::memoryFile(test::guestImage(test::powerOff(), false));
  EXPECT_NE(launchFailure().find("boot.kernel: an ELF file without a PVH note"), std::string::npos);
}

TEST_F(QemuMachineTest, kernelCutShort_isNamed) {
  files_.kernel = test::memoryFile(test::guestImage(test::powerOff()).substr(0, 100));
  EXPECT_NE(launchFailure().find("boot.kernel: program header 1 goes beyond"), std::string::npos);
}

TEST_F(QemuMachineTest, kernelThatIsNone_isNamed) {
  files_.kernel = test::memoryFile("#!/bin/sh\n");
  EXPECT_NE(launchFailure().find("boot.kernel: neither"), std::string::npos);
}

TEST_F(QemuMachineTest, disksOfEveryKind_startAndLeaveTheDescriptorsClosed) {
  const std::size_t before = openDescriptors();
  files_.kernel = test::guestFile({test::powerOff()});
  for (const bool readOnly : {false, true}) {
    for (const auto cache : {DiskSpec::Cache::kWriteback, DiskSpec::Cache::kUnsafe}) {
      DiskSpec disk;
      disk.readOnly = readOnly;
      disk.cache = cache;
      disk.serial = "serial-" + std::to_string(spec_.disks.size());
      spec_.disks.push_back(disk);
      Fd file = test::memoryFile(std::string(1 << 20, '\0'));
      if (readOnly) {
        const std::string path = "/proc/self/fd/" + std::to_string(file.get());
        file = Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
      }
      files_.disks.push_back(std::move(file));
    }
  }
  spec_.cpus = 2;
  spec_.coresPerSocket = 2;
  spec_.rng = true;
  spec_.uuid = "01234567-89ab-cdef-0123-456789abcdef";
  machine_ = launch();
  machine_->start().wait(io_.waitScope);
  EXPECT_EQ(awaitEnd(), EndCause::POWER_OFF);
  machine_.reset();
  EXPECT_EQ(openDescriptors(), before - 1) << "the console's was the machine's before, too";
}

TEST_F(QemuMachineTest, furtherDevices_startAndLeaveTheFirstConsoleAlone) {
  spec_.nics.resize(2);
  spec_.nics[1].mac = "52:54:00:00:00:01";
  spec_.nics[1].mtu = 1400;
  files_.nics.resize(2);
  spec_.consoles.push_back(ConsoleKind::kVirtio);
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
  const Fd ours(ends[0]);
  files_.consoles.emplace_back(ends[1]);
  boot({test::print("hello"), test::powerOff()});
  EXPECT_EQ(readUntil("hello"), "hello");
  EXPECT_EQ(awaitEnd(), EndCause::POWER_OFF);
}

TEST_F(QemuMachineTest, tapDevice_getsTheHeaderOfTheCardThatIsAttachedToIt) {
  if (::unshare(CLONE_NEWNET) != 0) {
    GTEST_SKIP() << vmmhost::systemError("a network namespace and TAP devices need root", errno).message();
  }
  Fd tap(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  ifreq request{};
  request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
  ASSERT_EQ(::ioctl(tap.get(), TUNSETIFF, &request), 0);
  int headerBytes = 12;
  ASSERT_EQ(::ioctl(tap.get(), TUNSETVNETHDRSZ, &headerBytes), 0);
  const Fd ours(::fcntl(tap.get(), F_DUPFD_CLOEXEC, 0));
  spec_.nics.resize(1);
  files_.nics.push_back(std::move(tap));
  boot({test::print("hello"), test::powerOff()});
  EXPECT_EQ(readUntil("hello"), "hello");
  ASSERT_EQ(::ioctl(ours.get(), TUNGETVNETHDRSZ, &headerBytes), 0);
  EXPECT_EQ(headerBytes, 10);  // no driver has asked for virtio 1.0
  EXPECT_EQ(awaitEnd(), EndCause::POWER_OFF);
}

TEST_F(QemuMachineTest, balloon_takesEveryTargetUpToAllMemory) {
  spec_.memoryBytes = (std::uint64_t{32} << 20) + 4096;
  spec_.balloon = BalloonSpec{.targetBytes = 8 << 20};
  boot({test::print(">"), test::echoUntil('q'), test::powerOff()});
  EXPECT_TRUE(machine_->hasBalloon());
  for (const std::uint64_t target : {spec_.memoryBytes, std::uint64_t{1}, std::uint64_t{0}}) {
    machine_->setBalloonTarget(target).wait(io_.waitScope);
  }
  try {
    machine_->setBalloonTarget(std::uint64_t{33} << 20).wait(io_.waitScope);
    FAIL();
  } catch (const kj::Exception& why) {
    EXPECT_NE(std::string(why.getDescription().cStr()).find("more than the VM's memory"), std::string::npos);
  }
  EXPECT_EQ(machine_->balloonActual().wait(io_.waitScope), 0u);  // its guest has no driver
  console_->write("q", 1).wait(io_.waitScope);
  EXPECT_EQ(awaitEnd(), EndCause::POWER_OFF);
  expectGone(machine_->setBalloonTarget(0));
  expectGone(machine_->balloonActual());
}

TEST_F(QemuMachineTest, watchdogThatRunsOut_endsTheMachine) {
  spec_.watchdog = WatchdogAction::kPowerOff;
  boot({test::startWatchdog(), test::loopForever()});
  EXPECT_EQ(awaitEnd(), EndCause::WATCHDOG);
  EXPECT_EQ(events_.resets, 0);
}

TEST_F(QemuMachineTest, watchdogThatRunsOut_resetsTheMachine) {
  spec_.watchdog = WatchdogAction::kReset;
  boot({test::print("boot."), test::startWatchdog(), test::loopForever()});
  EXPECT_EQ(readUntil("boot.boot.boot."), "boot.boot.boot.");
  EXPECT_GE(events_.resets, 2);
  EXPECT_EQ(events_.endings, 0);
}

TEST_F(QemuMachineTest, readOnlyDescriptorForAWritableDisk_isRefused) {
  files_.kernel = test::guestFile({test::powerOff()});
  spec_.disks.emplace_back();
  const Fd file = test::memoryFile(std::string(1 << 20, '\0'));
  files_.disks.emplace_back(::open(("/proc/self/fd/" + std::to_string(file.get())).c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_NE(launchFailure().find("QEMU did not start"), std::string::npos);
}

TEST_F(QemuMachineTest, destroyedWhileRunning_reapsWithoutAnEvent) {
  boot({test::print("x"), test::loopForever()});
  readUntil("x");
  const pid_t pid = machine_->qemuPid();
  ASSERT_GT(pid, 0);
  EXPECT_EQ(::kill(pid, 0), 0);
  machine_.reset();
  EXPECT_EQ(::kill(pid, 0), -1);
  EXPECT_EQ(errno, ESRCH);
  EXPECT_EQ(events_.endings, 0);
  EXPECT_EQ(readUntil("never said"), "x");  // end of file: nobody else holds the console
}

}  // namespace
}  // namespace qemubackend
