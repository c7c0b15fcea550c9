#include "worker-kvm/vm/console.h"

#include <kj/debug.h>
#include <kj/vector.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "vmmhost/worker/worker.h"

namespace vmmhost::kvm::vm {

namespace {

constexpr auto kModeration = 4 * kj::MILLISECONDS;

}  // namespace

Console::Console(kj::UnixEventPort& port, kj::Timer& timer, Fd socket, devices::Serial& serial,
                 counters::WorkerPage& counters)
    : timer_(timer),
      socket_(std::move(socket)),
      serial_(serial),
      counters_(counters),
      inputTask_(kj::READY_NOW),
      outputTask_(kj::READY_NOW) {
  if (socket_) {
    observer_.emplace(port, socket_.get(), kj::UnixEventPort::FdObserver::OBSERVE_READ_WRITE);
    inputTask_ = watchInput().eagerlyEvaluate(nullptr);
  }
}

Console::~Console() = default;

void Console::pump() {
  pumpOutput();
  if (inputStart_ != inputEnd_) {  // else the socket tells when there is something to read
    pumpInput();
  }
}

kj::Promise<void> Console::flushed() {
  pumpOutput();
  if (outputStart_ == outputEnd_ && !serial_.hasOutput()) {
    return kj::READY_NOW;
  }
  auto pair = kj::newPromiseAndFulfiller<void>();
  waitingForFlush_.add(kj::mv(pair.fulfiller));
  return kj::mv(pair.promise);
}

kj::Promise<void> Console::watchInput() {
  // Asked for before reading: edges that come meanwhile are not lost.
  auto readable = KJ_ASSERT_NONNULL(observer_).whenBecomesReadable();
  pumpInput();
  return readable.then([this]() -> kj::Promise<void> {
    if (!inputOpen_) {
      return kj::READY_NOW;
    }
    return watchInput();
  });
}

kj::Promise<void> Console::watchOutput() {
  return KJ_ASSERT_NONNULL(observer_).whenBecomesWritable().then([this]() -> kj::Promise<void> {
    writable_ = true;
    pumpOutput();
    if (!writable_) {
      return watchOutput();
    }
    watchingOutput_ = false;
    return kj::READY_NOW;
  });
}

void Console::pumpInput() {
  while (socket_ && inputOpen_) {
    if (inputStart_ == inputEnd_) {
      const ssize_t count = ::read(socket_.get(), input_.data(), input_.size());
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
      inputStart_ = 0;
      inputEnd_ = static_cast<std::size_t>(count);
      counters_.add(counters::Cell::kConsoleBytesIn, inputEnd_);
    }
    const std::size_t taken = serial_.offerInput({input_.data() + inputStart_, inputEnd_ - inputStart_});
    inputStart_ += taken;
    if (inputStart_ != inputEnd_) {
      return;  // the port asks for attention when the guest has read
    }
  }
}

bool Console::pumpOutput() {
  bool hasTaken = false;
  while (true) {
    if (outputStart_ == outputEnd_) {
      outputStart_ = 0;
      outputEnd_ = serial_.takeOutput(output_);
      if (outputEnd_ == 0) {
        break;
      }
      hasTaken = true;
      counters_.add(counters::Cell::kConsoleBytesOut, outputEnd_);
    }
    if (!socket_) {
      outputStart_ = outputEnd_;
      continue;
    }
    if (!writable_) {
      return hasTaken;
    }
    const ssize_t count = ::write(socket_.get(), output_.data() + outputStart_, outputEnd_ - outputStart_);
    if (count >= 0) {
      outputStart_ += static_cast<std::size_t>(count);
    } else if (errno == EAGAIN) {
      writable_ = false;
      if (!std::exchange(watchingOutput_, true)) {  // not from within the task itself, which goes on by itself
        outputTask_ = watchOutput().eagerlyEvaluate(nullptr);
      }
      return hasTaken;
    } else if (errno != EINTR) {
      close();
    }
  }
  for (auto& waiting : waitingForFlush_) {
    waiting->fulfill();
  }
  waitingForFlush_.clear();
  if (hasTaken && !std::exchange(isModerating_, true)) {
    serial_.setModerated(true);
    moderation_ = moderate().eagerlyEvaluate(nullptr);
  }
  return hasTaken;
}

kj::Promise<void> Console::moderate() {
  return timer_.afterDelay(kModeration).then([this]() -> kj::Promise<void> {
    if (!pumpOutput()) {
      isModerating_ = false;
      serial_.setModerated(false);
      if (!writable_ || !serial_.hasOutput()) {  // what waits for the socket is carried once that has room
        return kj::READY_NOW;
      }
      isModerating_ = true;  // it came in between
      serial_.setModerated(true);
    }
    return moderate();
  });
}

void Console::close() {
  worker::log(worker::LogLevel::kInfo, "the host has closed the console: output is discarded");
  inputOpen_ = false;
  outputStart_ = outputEnd_;
  // The observer goes before what it observes; promises that came from it stay unresolved, and nobody waits for them.
  inputTask_ = kj::READY_NOW;
  observer_ = nullptr;
  socket_.reset();
}

}  // namespace vmmhost::kvm::vm
