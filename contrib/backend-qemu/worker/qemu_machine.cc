#include "worker/qemu_machine.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

#include "worker/boot_file.h"
#include "worker/deadline.h"
#include "worker/image_check.h"
#include "worker/kernel_check.h"

namespace qemubackend {

using vmmhost::Error;
using vmmhost::ErrorCode;
using vmmhost::Fd;

namespace {

// From start to all devices made and the kernel loaded; less than the plan's limit for create, so that the cause is
// told. A loaded machine needs a second or two.
constexpr std::chrono::milliseconds kStartTimeout{15000};
// After SHUTDOWN disks are flushed.
constexpr std::chrono::milliseconds kShutdownGrace{30000};
// After one of its two streams has ended the process itself is about to.
constexpr std::chrono::milliseconds kExitGrace{5000};
constexpr std::size_t kKeptLines = 8;
constexpr std::size_t kMaxLineBytes = 400;

Error gone() {
  return Error(ErrorCode::kFailedPrecondition, "the VM has ended");
}

// Numbers the descriptors that QEMU is to get in the order in which they are asked for.
class Inheritance {
 public:
  int add(const Fd& descriptor) {
    descriptors_.push_back(descriptor.get());
    return QemuProcess::kFirstDescriptor + static_cast<int>(descriptors_.size()) - 1;
  }
  const std::vector<int>& descriptors() const { return descriptors_; }

 private:
  std::vector<int> descriptors_;
};

std::string pathOf(int descriptor) {
  return "/proc/self/fd/" + std::to_string(descriptor);
}

void checkFiles(const MachineSpec& spec, const MachineFiles& files) {
  const std::uint64_t kernelEnd =
      vmmhost::aboutField("boot.kernel", [&]() { return checkKernel(files.kernel, spec.memoryBytes); });
  if (files.initrd) {
    vmmhost::aboutField("boot.initrd", [&]() { checkInitrd(files.initrd, spec.memoryBytes, kernelEnd); });
  }
  for (std::size_t index = 0; index < spec.disks.size(); ++index) {
    const std::string field = "disks[" + std::to_string(index) + "]";
    struct stat status = {};
    if (::fstat(files.disks.at(index).get(), &status) == 0 && S_ISBLK(status.st_mode)) {
      throw Error(ErrorCode::kUnsupported, field + ".file: a block device; backend qemu takes regular files")
          .withField(field + ".file");
    }
    if (spec.disks[index].format == DiskSpec::Format::kQcow2) {
      checkQcow2Header(field, readBeginning(files.disks.at(index).get(), kImageHeaderBytes, field + ".file"));
    }
  }
}

// QEMU drops what a virtio console says and its stream does not take at once ("silently dropping console data", says
// hw/char/virtio-console.c). So it waits instead: the host always drains consoles. It set the stream, whose description
// it shares with this process, to non-blocking when it made the device.
void awaitDraining(const std::vector<Fd>& consoles) {
  for (const Fd& console : consoles) {
    const int flags = ::fcntl(console.get(), F_GETFL);
    if (flags < 0 || ::fcntl(console.get(), F_SETFL, flags & ~O_NONBLOCK) != 0) {
      kj::throwFatalException(vmmhost::worker::toKj(vmmhost::systemError("making a console blocking", errno)));
    }
  }
}

}  // namespace

kj::Promise<std::unique_ptr<QemuMachine>> QemuMachine::launch(const MachineSpec& spec, MachineFiles files,
                                                              QemuOptions options, vmmhost::worker::Events& events,
                                                              kj::AsyncIoContext& io) {
  checkFiles(spec, files);
  int sockets[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets) != 0) {
    throw vmmhost::systemError("making a socket pair for QMP", errno);
  }
  Fd qmp(sockets[0]);
  const Fd qemuEnd(sockets[1]);

  Inheritance inherited;
  ChildDescriptors numbers;
  numbers.qmp = inherited.add(qemuEnd);
  for (const Fd& console : files.consoles) {
    numbers.consoles.push_back(inherited.add(console));
  }
  files.kernel = reopenable(std::move(files.kernel), "boot.kernel");
  numbers.kernelPath = pathOf(inherited.add(files.kernel));
  if (files.initrd) {
    files.initrd = reopenable(std::move(files.initrd), "boot.initrd");
    numbers.initrdPath = pathOf(inherited.add(files.initrd));
  }
  for (const Fd& disk : files.disks) {
    numbers.disks.push_back(inherited.add(disk));
  }
  for (const Fd& nic : files.nics) {
    numbers.nics.push_back(nic ? inherited.add(nic) : -1);
  }
  if (files.kvm) {
    numbers.kvm = inherited.add(files.kvm);
  }

  auto arguments = qemuArguments(spec, numbers);
  arguments.insert(arguments.end(), options.extraArguments.begin(), options.extraArguments.end());
  auto process = std::make_unique<QemuProcess>(options.program, arguments, inherited.descriptors());
  auto machine =
      std::make_unique<QemuMachine>(Key{}, spec, std::move(process), std::move(qmp), std::move(options), events, io);

  std::vector<Fd> virtioConsoles;
  for (std::size_t index = 0; index < spec.consoles.size(); ++index) {
    if (spec.consoles[index] == ConsoleKind::kVirtio) {
      virtioConsoles.push_back(std::move(files.consoles.at(index)));
    }
  }
  // Devices are made before the first command is answered: from here on only guest code is missing.
  auto owner = std::make_shared<std::unique_ptr<QemuMachine>>(std::move(machine));
  QemuMachine& self = **owner;
  return self.qmp_.handshake(kStartTimeout)
      .then([&self]() { return self.qmp_.execute("query-status"); })
      .then([&self, commands = firstCommands(spec, numbers),
             virtioConsoles = std::move(virtioConsoles)](const QmpMessage& reply) mutable -> kj::Promise<void> {
        if (reply.status != "prelaunch" && reply.status != "paused") {
          return vmmhost::worker::fail(Error(ErrorCode::kInternal, "QEMU started in the state '" + reply.status + "'"));
        }
        awaitDraining(virtioConsoles);
        return self.executeAll(std::move(commands));
      })
      .then(
          [owner]() -> kj::Promise<std::unique_ptr<QemuMachine>> {
            (*owner)->created_ = true;
            return std::move(*owner);
          },
          [owner](kj::Exception&& why) -> kj::Promise<std::unique_ptr<QemuMachine>> {
            QemuMachine& failed = **owner;
            const bool ending = why.getType() == kj::Exception::Type::DISCONNECTED;
            if (!ending) {
              failed.process_->kill();
            }
            return failed.gone_.addBranch().then([owner, ending, why = kj::mv(why)]() mutable {
              return ending ? vmmhost::worker::fail<std::unique_ptr<QemuMachine>>((*owner)->startFailure())
                            : kj::Promise<std::unique_ptr<QemuMachine>>(kj::mv(why));
            });
          });
}

QemuMachine::QemuMachine(Key, const MachineSpec& spec, std::unique_ptr<QemuProcess> process, Fd qmp,
                         QemuOptions options, vmmhost::worker::Events& events, kj::AsyncIoContext& io)
    : memoryBytes_(roundedMemory(spec.memoryBytes)),
      hasBalloon_(spec.balloon.has_value()),
      watchdog_(spec.watchdog),
      fullDisks_(spec.disks.size()),
      options_(std::move(options)),
      events_(events),
      timer_(io.provider->getTimer()),
      process_(std::move(process)),
      qmp_(io, std::move(qmp), [this](const QmpMessage& event) { onEvent(event); }),
      output_(io.lowLevelProvider->wrapInputFd(process_->takeOutput().release(),
                                               kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP |
                                                   kj::LowLevelAsyncIoProvider::ALREADY_CLOEXEC |
                                                   kj::LowLevelAsyncIoProvider::ALREADY_NONBLOCK)),
      gone_(watch().fork()) {
}

kj::Promise<void> QemuMachine::watch() {
  auto talk = qmp_.run().then([this](std::string violation) {
    if (violation.empty()) {
      killAfter(kExitGrace);
    } else {
      outcome_.noteFault(std::move(violation));
      process_->kill();
    }
  });
  auto output = readOutput().then([this]() { killAfter(kExitGrace); });
  kj::Promise<void> both[] = {kj::mv(talk), kj::mv(output)};
  return kj::joinPromises(kj::arr(kj::mv(both[0]), kj::mv(both[1])))
      .then([this]() {
        const ProcessEnd end = process_->killAndReap();
        if (!line_.empty()) {
          takeOutputLine();
        }
        end_ = outcome_.finish(end, lastLines());
        if (created_) {
          events_.ended(end_->cause, end_->detail);
        }
      })
      .eagerlyEvaluate([this](kj::Exception&& broken) {
        process_->killAndReap();
        end_ = Outcome{vmmhost::schema::EndCause::WORKER_FAULT, broken.getDescription().cStr()};
        if (created_) {
          events_.ended(end_->cause, end_->detail);
        }
      });
}

kj::Promise<void> QemuMachine::readOutput() {
  return output_->tryRead(outputBuffer_, 1, sizeof(outputBuffer_)).then([this](std::size_t count) -> kj::Promise<void> {
    if (count == 0) {
      return kj::READY_NOW;
    }
    for (const char c : std::string_view(outputBuffer_, count)) {
      if (c == '\n') {
        takeOutputLine();
      } else if (line_.size() < kMaxLineBytes) {
        line_ += c;
      }
    }
    return readOutput();
  });
}

void QemuMachine::takeOutputLine() {
  if (!line_.empty() && line_.back() == '\r') {
    line_.pop_back();
  }
  // QEMU says for each of its loops that it goes without epoll, which its jail does not have, and ends no line with it.
  constexpr std::string_view kWithoutEpoll = "Failed to create epoll instance: Too many open files";
  const bool isAboutEpoll = line_.starts_with(kWithoutEpoll);
  while (line_.starts_with(kWithoutEpoll)) {
    line_.erase(0, kWithoutEpoll.size());
  }
  if (isAboutEpoll && line_.empty()) {
    return;
  }
  options_.log(line_);
  lastLines_.push_back(std::exchange(line_, {}));
  if (lastLines_.size() > kKeptLines) {
    lastLines_.pop_front();
  }
}

std::string QemuMachine::lastLines() const {
  std::string text;
  for (const std::string& line : lastLines_) {
    text += (text.empty() ? "" : " | ") + line;
  }
  return text;
}

Error QemuMachine::startFailure() const {
  const std::string said = lastLines();
  const auto mentions = [&](std::string_view text) { return said.find(text) != std::string::npos; };
  if (mentions("without PVH ELF Note")) {
    return Error(ErrorCode::kInvalidArgument, "boot.kernel: an ELF file without a PVH note").withField("boot.kernel");
  }
  if (mentions("-accel kvm") || mentions("kvm-accel")) {
    return Error(ErrorCode::kUnavailable, "platform.options accel=kvm: " + said,
                 "QEMU takes /dev/kvm by descriptor from 9.0 on; without the option it translates");
  }
  if (mentions("cannot set up guest memory") || mentions("Cannot allocate memory")) {
    return Error(ErrorCode::kResourceExhausted, "memory.size: QEMU has no memory for the guest: " + said)
        .withField("memory.size");
  }
  const std::string detail = end_ ? end_->detail : "it ended";
  return Error(ErrorCode::kUnavailable, "QEMU did not start: " + detail);
}

void QemuMachine::killAfter(std::chrono::milliseconds grace) {
  exitDeadline_ =
      timer_.afterDelay(grace.count() * kj::MILLISECONDS).then([this]() { process_->kill(); }).eagerlyEvaluate(nullptr);
}

void QemuMachine::onEvent(const QmpMessage& event) {
  if (event.name == "RESET") {
    KJ_IF_MAYBE (waiting, resetSeen_) {
      (*waiting)->fulfill();
    }
    return;
  }
  if (const auto disk = fullDisk(event)) {
    noteFullDisk(*disk);
    return;
  }
  switch (outcome_.note(event)) {
    case OutcomeTracker::Next::kNothing:
      break;
    case OutcomeTracker::Next::kAwaitExit:
      killAfter(kShutdownGrace);
      break;
    case OutcomeTracker::Next::kAskStatus:
      askWhyStopped();
      break;
    case OutcomeTracker::Next::kWatchdog:
      watchdogRanOut();
      break;
  }
}

void QemuMachine::noteFullDisk(std::uint32_t disk) {
  // A guest can go on writing without end.
  if (disk < fullDisks_.size() && std::has_single_bit(++fullDisks_[disk])) {
    events_.diskFull(disk);
  }
}

void QemuMachine::watchdogRanOut() {
  if (watchdog_ == WatchdogAction::kReset) {
    options_.log(std::string("reset: ") + kWatchdogRanOut);
    watchdogTask_ = reset().eagerlyEvaluate([this](kj::Exception&& why) {
      if (why.getType() != kj::Exception::Type::DISCONNECTED) {  // its end is told by watch
        outcome_.noteFault(why.getDescription().cStr());
        process_->kill();
      }
    });
  } else {
    outcome_.noteWatchdog();
    killAfter(kShutdownGrace);
    watchdogTask_ = qmp_.execute("quit").ignoreResult().eagerlyEvaluate([](kj::Exception&&) {});
  }
}

void QemuMachine::askWhyStopped() {
  question_ = qmp_.execute("query-status")
                  .then([this](const QmpMessage& reply) {
                    if (outcome_.noteStatus(reply.status)) {
                      process_->kill();
                    }
                  })
                  .eagerlyEvaluate([](kj::Exception&&) {});  // its end is told by watch
}

kj::Promise<void> QemuMachine::executeAll(std::vector<QmpCommand> commands) {
  kj::Promise<void> done = kj::READY_NOW;
  for (QmpCommand& command : commands) {
    done = done.then([this, command = std::move(command)]() {
      return qmp_.execute(command.name, command.arguments).ignoreResult();
    });
  }
  return done;
}

kj::Promise<void> QemuMachine::inOrder(kj::Function<kj::Promise<void>()> operation) {
  auto turn = queue_
                  .then([this, operation = kj::mv(operation)]() mutable {
                    return outcome_.ended() || end_ ? vmmhost::worker::fail(gone()) : operation();
                  })
                  .fork();
  queue_ = turn.addBranch().eagerlyEvaluate([](kj::Exception&&) {});  // told to whoever asked
  return turn.addBranch();
}

kj::Promise<void> QemuMachine::stopVirtualCpus() {
  outcome_.expectStop();
  return qmp_.execute("stop")
      .then([this](const QmpMessage&) { return qmp_.execute("query-status"); })
      .then(
          [this](const QmpMessage& reply) {
            outcome_.stopDone();
            // It may have stopped for a reason of its own just before.
            if (outcome_.noteStatus(reply.status)) {
              process_->kill();
              kj::throwFatalException(vmmhost::worker::toKj(gone()));
            }
          },
          [this](kj::Exception&& why) {
            outcome_.stopDone();
            kj::throwFatalException(kj::mv(why));
          });
}

kj::Promise<void> QemuMachine::runVirtualCpus() {
  return qmp_.execute("cont").ignoreResult();
}

kj::Promise<void> QemuMachine::pause() {
  return inOrder([this]() { return stopVirtualCpus().then([this]() { running_ = false; }); });
}

kj::Promise<void> QemuMachine::resume() {
  return inOrder([this]() { return runVirtualCpus().then([this]() { running_ = true; }); });
}

kj::Promise<void> QemuMachine::pressPowerButton() {
  return inOrder([this]() { return qmp_.execute("system_powerdown").ignoreResult(); });
}

kj::Promise<void> QemuMachine::reset() {
  // A reset that the guest asks for ends QEMU (-no-reboot), and so would ours. The virtual CPUs stand still while that
  // is switched off, so that no reset of the guest's slips through.
  return inOrder([this]() {
    return stopVirtualCpus()
        .then([this]() { return resetStopped(); })
        .then([this]() { return running_ ? runVirtualCpus() : kj::Promise<void>(kj::READY_NOW); })
        .then([this]() { events_.resetDone(); });
  });
}

kj::Promise<void> QemuMachine::resetStopped() {
  auto seen = kj::newPromiseAndFulfiller<void>();
  resetSeen_ = kj::mv(seen.fulfiller);
  return qmp_.execute("set-action", R"({"reboot":"reset"})")
      .then([this](const QmpMessage&) { return qmp_.execute("system_reset"); })
      .then([this, seen = kj::mv(seen.promise)](const QmpMessage&) mutable {
        // The command only asks for it.
        return withDeadline<void>(timer_, QmpClient::kCommandTimeout, "system_reset", kj::mv(seen));
      })
      .then([this]() { return qmp_.execute("set-action", R"({"reboot":"shutdown"})"); })
      .then([this](const QmpMessage&) { resetSeen_ = nullptr; });
}

kj::Promise<void> QemuMachine::setBalloonTarget(std::uint64_t bytes) {
  if (bytes > memoryBytes_) {
    return vmmhost::worker::fail(Error(ErrorCode::kInvalidArgument, "a balloon of " + std::to_string(bytes) +
                                                                        " bytes is more than the VM's memory of " +
                                                                        std::to_string(memoryBytes_)));
  }
  return inOrder([this, bytes]() { return executeAll({balloonCommand(memoryBytes_, bytes)}); });
}

kj::Promise<std::uint64_t> QemuMachine::balloonActual() {
  if (outcome_.ended() || end_) {
    return vmmhost::worker::fail<std::uint64_t>(gone());
  }
  return qmp_.execute("query-balloon").then([this](const QmpMessage& reply) -> kj::Promise<std::uint64_t> {
    if (!reply.actual) {
      return vmmhost::worker::fail<std::uint64_t>(Error(ErrorCode::kProtocol, "QMP: a balloon without a size"));
    }
    // The guest says how much it has given up, and may say anything.
    const auto left = static_cast<std::uint64_t>(std::max<std::int64_t>(*reply.actual, 0));
    return memoryBytes_ - std::min(left, memoryBytes_);
  });
}

}  // namespace qemubackend
