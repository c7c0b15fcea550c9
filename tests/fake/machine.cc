#include "tests/fake/machine.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "tests/fake/config.h"
#include "vmmhost/error.h"

namespace vmmhost::fake {
namespace {

using counters::Cell;

constexpr std::size_t kInputBytes = 512;
constexpr std::size_t kSayBytes = 512;  // then others have their turn, and a pause its effect
constexpr char kEndOfInput = 4;         // ^D

}  // namespace

FurtherConsole::FurtherConsole(std::uint32_t index, Fd socket, kj::AsyncIoContext& io)
    : socket_(std::move(socket)),
      observer_(io.unixEventPort, socket_.get(), kj::UnixEventPort::FdObserver::OBSERVE_READ) {
  say("console " + std::to_string(index) + "\n");
  echoing_ = echo().eagerlyEvaluate(nullptr);
}

void FurtherConsole::say(const std::string& text) {
  [[maybe_unused]] const ssize_t written = ::write(socket_.get(), text.data(), text.size());
}

kj::Promise<void> FurtherConsole::echo() {
  auto readable = observer_.whenBecomesReadable();
  char buffer[kInputBytes];
  ssize_t count = 0;
  while ((count = ::read(socket_.get(), buffer, sizeof buffer)) > 0) {
    say({buffer, static_cast<std::size_t>(count)});
  }
  return count == 0 ? kj::Promise<void>(kj::READY_NOW) : readable.then([this]() { return echo(); });
}

FakeMachine::FakeMachine(Parts parts, worker::Events& events, kj::AsyncIoContext& io)
    : performance_(std::move(parts.performance)),
      balloon_(parts.balloon),
      console_(std::move(parts.consoles[0])),
      counters_(std::move(parts.counters)),
      vsock_(parts.hasVsock ? std::make_unique<FakeVsock>(events.services(), io) : nullptr),
      events_(events),
      timer_(io.provider->getTimer()),
      observer_(io.unixEventPort, console_.get(), kj::UnixEventPort::FdObserver::OBSERVE_READ_WRITE) {
  inputTask_ = watchInput().eagerlyEvaluate(nullptr);
  for (auto& [index, socket] : parts.consoles) {
    if (index != 0) {
      further_[index] = std::make_unique<FurtherConsole>(index, std::move(socket), io);
    }
  }
}

FakeMachine::~FakeMachine() noexcept = default;

kj::Promise<void> FakeMachine::start() {
  life_ = Life::kStarted;
  begin();
  return kj::READY_NOW;
}

kj::Promise<void> FakeMachine::pause() {
  requireAlive("pause");
  if (!std::exchange(paused_, true)) {
    counters_->add(Cell::kPauses);
  }
  return kj::READY_NOW;
}

kj::Promise<void> FakeMachine::resume() {
  requireAlive("resume");
  paused_ = false;
  wake();
  return kj::READY_NOW;
}

kj::Promise<void> FakeMachine::pressPowerButton() {
  requireAlive("press");
  pressed_ = true;
  wake();
  return kj::READY_NOW;
}

kj::Promise<void> FakeMachine::setBalloonTarget(std::uint64_t bytes) {
  requireAlive("balloon");
  balloon_ = bytes;
  return kj::READY_NOW;
}

kj::Promise<void> FakeMachine::resizeConsole(std::uint32_t console, std::uint16_t columns, std::uint16_t rows) {
  const std::string text = "size " + std::to_string(columns) + "x" + std::to_string(rows) + "\n";
  if (const auto found = further_.find(console); found != further_.end()) {
    found->second->say(text);
  } else if (console == 0) {
    [[maybe_unused]] const ssize_t written = ::write(console_.get(), text.data(), text.size());
  }
  return kj::READY_NOW;
}

kj::Promise<void> FakeMachine::reset() {
  requireAlive("reset");
  counters_->add(Cell::kResets);
  pressed_ = false;
  if (vsock_) {
    vsock_->reset();
  }
  events_.resetDone();
  begin();
  return kj::READY_NOW;
}

kj::Promise<void> FakeMachine::connectVsock(std::uint32_t port, Fd socket) {
  requireAlive("connect");
  vsock_->connect(port, std::move(socket));
  return kj::READY_NOW;
}

void FakeMachine::begin() {
  guest_ = nullptr;  // what it did before stops where it is
  waiting_ = nullptr;
  counted_ = 0;
  asked_ = 0;
  saidFurther_ = 0;
  // Behind the answer to the call that made it begin.
  guest_ = kj::evalLater([this] {
             return say(performance_.says).then([this] { return goOn(); });
           }).then([this] {
               end();
             }).eagerlyEvaluate(nullptr);
}

kj::Promise<void> FakeMachine::say(std::string text) {
  if (text.empty() || !console_) {
    return kj::READY_NOW;
  }
  if (paused_) {
    return waitToRun().then([this, text = std::move(text)]() mutable { return say(std::move(text)); });
  }
  const ssize_t count = ::write(console_.get(), text.data(), std::min(text.size(), kSayBytes));
  if (count < 0 && errno == EAGAIN) {
    return observer_.whenBecomesWritable().then(
        [this, text = std::move(text)]() mutable { return say(std::move(text)); });
  }
  if (count < 0 && errno != EINTR) {
    return kj::READY_NOW;  // the host has closed the console: the guest talks to nobody
  }
  if (count > 0) {
    const auto said = static_cast<std::uint64_t>(count);
    counters_->add(Cell::kConsoleBytesOut, said);
    counters_->add(Cell::kVcpuExits, 2 * said);
    counters_->add(Cell::kPioExits, 2 * said);
    text.erase(0, said);
  }
  return kj::evalLater([this, text = std::move(text)]() mutable { return say(std::move(text)); });
}

kj::Promise<void> FakeMachine::goOn() {
  if (paused_) {
    return waitToRun().then([this] { return goOn(); });
  }
  if (performance_.then == Performance::Then::kEnd || pressed_) {
    return kj::READY_NOW;
  }
  if (performance_.then == Performance::Then::kCount) {
    char line[16];
    std::snprintf(line, sizeof line, "tick %08x\n", counted_++);
    return say(line).then([this] { return timer_.afterDelay(1 * kj::MILLISECONDS); }).then([this] { return goOn(); });
  }
  if (saidFurther_ < performance_.further.size()) {
    while (!input_.empty()) {
      asked_ += consumeInput().size();  // more may have come
    }
    if (saidFurther_ < asked_) {
      return say(performance_.further[saidFurther_++]).then([this] { return goOn(); });
    }
  }
  if (performance_.then == Performance::Then::kLoop || input_.empty()) {
    return waitForMore().then([this] { return goOn(); });
  }
  std::string heard = consumeInput();
  const std::size_t end = heard.find(kEndOfInput);
  const bool isDone = end != std::string::npos;
  heard.resize(std::min(end, heard.size()));
  return say(std::move(heard)).then([this, isDone] { return isDone ? say(performance_.lastWords) : goOn(); });
}

kj::Promise<void> FakeMachine::waitToRun() {
  return paused_ ? waitForMore().then([this] { return waitToRun(); }) : kj::Promise<void>(kj::READY_NOW);
}

kj::Promise<void> FakeMachine::waitForMore() {
  auto pair = kj::newPromiseAndFulfiller<void>();
  waiting_ = kj::mv(pair.fulfiller);
  return kj::mv(pair.promise);
}

void FakeMachine::wake() {
  KJ_IF_MAYBE (fulfiller, waiting_) {
    (*fulfiller)->fulfill();
    waiting_ = nullptr;
  }
}

kj::Promise<void> FakeMachine::watchInput() {
  // Asked for before reading: edges that come meanwhile are not lost.
  auto readable = observer_.whenBecomesReadable();
  takeInput();
  return readable.then([this]() -> kj::Promise<void> { return inputOpen_ ? watchInput() : kj::READY_NOW; });
}

void FakeMachine::takeInput() {
  while (inputOpen_ && input_.size() < kInputBytes) {
    char buffer[kInputBytes];
    const ssize_t count = ::read(console_.get(), buffer, kInputBytes - input_.size());
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0 && errno == EAGAIN) {
      return;
    }
    if (count <= 0) {
      inputOpen_ = false;  // the host types no more; it may still read
      return;
    }
    counters_->add(Cell::kConsoleBytesIn, static_cast<std::uint64_t>(count));
    input_.append(buffer, static_cast<std::size_t>(count));
    wake();
  }
}

std::string FakeMachine::consumeInput() {
  std::string heard = std::exchange(input_, {});
  takeInput();  // there is room again
  return heard;
}

void FakeMachine::end() {
  life_ = Life::kEnded;
  counters_->add(Cell::kVcpuExits, performance_.exits);
  counters_->add(Cell::kPioExits, performance_.portExits);
  counters_->add(Cell::kMmioExits, performance_.mmioExits);
  counters_->add(Cell::kUnknownPortReads, performance_.unknownPortReads);
  counters_->add(Cell::kUnknownPortWrites, performance_.unknownPortWrites);
  counters_->add(Cell::kUnknownMmio, performance_.unknownMmio);
  events_.ended(performance_.cause, performance_.detail);
}

void FakeMachine::requireAlive(const char* operation) const {
  if (life_ == Life::kEnded) {
    throw Error(ErrorCode::kFailedPrecondition, std::string(operation) + ": the VM has ended");
  }
}

std::unique_ptr<FakeMachine> makeMachine(schema::VmConfig::Reader config, Given given, worker::Events& events,
                                         kj::AsyncIoContext& io) {
  check(config);
  const auto boot = config.getBoot();
  FakeMachine::Parts parts;
  parts.performance = performanceOf(guestName(given.kernel.get()),
                                    {boot.getCmdline().cStr(), config.getMemory().getSize(), std::move(given.initrd)});
  parts.consoles = std::move(given.consoles);
  if (config.hasBalloon()) {
    parts.balloon = config.getBalloon().getTargetSize();
  }
  parts.counters = given.counters ? std::make_unique<counters::WorkerPage>(std::move(given.counters))
                                  : std::make_unique<counters::WorkerPage>();
  parts.hasVsock = config.hasVsock() && config.getVsock().getEnabled();
  return std::make_unique<FakeMachine>(std::move(parts), events, io);
}

}  // namespace vmmhost::fake
