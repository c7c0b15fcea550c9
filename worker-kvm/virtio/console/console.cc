#include "worker-kvm/virtio/console/console.h"

#include <asm/unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "vmmhost/error.h"
#include "worker-kvm/virtio/features.h"

namespace vmmhost::kvm::virtio::console {

namespace {

TerminalSize unpacked(std::uint32_t size) {
  return {static_cast<std::uint16_t>(size), static_cast<std::uint16_t>(size >> 16)};
}

}  // namespace

Console::Console(io::EventThread& thread, ConsoleOptions options, std::vector<Fd> sockets)
    : options_(std::move(options)),
      sizes_(options_.ports.size()),
      conversation_(options_.ports),
      toDriverNotified_([this](std::uint32_t) { say(); }),
      fromDriverNotified_([this](std::uint32_t) { hear(); }),
      turns_([this] { takeTurns(); }),
      resized_([this] { sizeChanged(); }),
      emergencies_([this] { emergencyWritten(); }),
      thread_(*this, thread) {
  if (sockets.empty() || sockets.size() > kMaxPorts || sockets.size() != options_.ports.size()) {
    throw Error(ErrorCode::kInvalidArgument, options_.name + ": " + std::to_string(sockets.size()) + " ports, 1 to " +
                                                 std::to_string(kMaxPorts) + " are served");
  }
  emergency_.reserve(kEmergencyBytes);
  PortEvents& events = *this;
  for (std::size_t port = 0; port < sockets.size(); ++port) {
    ports_.push_back(std::make_unique<Port>(thread, port, std::move(sockets[port]), events));
  }
  queueSizes_.assign(hasSeveralPorts() ? transmitQueueOf(ports_.size() - 1) + 1 : 2, kQueueSize);
}

Console::~Console() {
  thread_.end();
  io::runOn(thread_.events(), [this] {
    for (const auto& port : ports_) {
      port->abandon();
    }
  });
}

confine::Rules Console::rulesFor(std::span<const Fd> sockets) {
  confine::Rules rules;
  for (const Fd& socket : sockets) {
    rules.push_back(confine::callOn(__NR_readv, socket.get()));
    rules.push_back(confine::callOn(__NR_writev, socket.get()));
    rules.push_back(confine::callOn(__NR_write, socket.get()));  // emergencies
  }
  return rules;
}

// A single port needs no conversation, and a guest boots the sooner.
std::uint64_t Console::features() const noexcept {
  return kSize | kEmergWrite | kIndirectDesc | kEventIdx | (hasSeveralPorts() ? kMultiport : 0);
}

void Console::readConfig(std::uint64_t offset, std::span<std::uint8_t> data) noexcept {
  const TerminalSize size = unpacked(sizes_[0].load(std::memory_order_relaxed));
  const Config config{size.columns, size.rows, static_cast<std::uint32_t>(ports_.size()), 0};
  std::array<std::uint8_t, sizeof config> bytes;
  std::memcpy(bytes.data(), &config, sizeof config);
  readBytes(bytes, offset, data);
}

// 5.3.4: a byte for port 0, at any time, also before there are queues.
void Console::writeConfig(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept {
  if (offset != kEmergencyWriteOffset || data.empty()) {
    return;
  }
  {
    const std::lock_guard lock(emergencyMutex_);
    if (emergency_.size() == kEmergencyBytes) {
      return;  // faster than it can be taken away: lost
    }
    emergency_.push_back(static_cast<char>(data[0]));
  }
  thread_.events().post(emergencies_);
}

void Console::setSize(std::size_t port, TerminalSize size) noexcept {
  if (port >= ports_.size() || !options_.ports[port].isConsole) {
    return;
  }
  const std::uint32_t packed = size.columns | std::uint32_t{size.rows} << 16;
  if (sizes_[port].exchange(packed) != packed) {
    thread_.events().post(resized_);
  }
}

void Console::start(Activation activation) noexcept {
  isBroken_ = false;
  agreed_ = activation.features & features();
  conversation_.reset();
  const bool converses = (agreed_ & kMultiport) != 0;
  if (converses) {
    toDriver_ = activation.moveQueue(kControlReceiveQueue);
    fromDriver_ = activation.moveQueue(kControlTransmitQueue);
    if (toDriver_) {
      thread_.events().watch(toDriver_->notified, EPOLLIN | EPOLLET, toDriverNotified_);
    }
    if (fromDriver_) {
      thread_.events().watch(fromDriver_->notified, EPOLLIN | EPOLLET, fromDriverNotified_);
    }
  }
  const std::size_t count = converses ? ports_.size() : 1;
  for (std::size_t port = 0; port < count; ++port) {
    auto receive = activation.moveQueue(receiveQueueOf(port));
    auto transmit = activation.moveQueue(transmitQueueOf(port));
    ports_[port]->start(std::move(receive), std::move(transmit), !converses);
  }
  hear();
}

bool Console::stop() noexcept {
  for (const auto& port : ports_) {
    port->stop();
  }
  if (toDriver_) {
    thread_.events().unwatch(toDriver_->notified, toDriverNotified_);
    toDriver_.reset();
  }
  if (fromDriver_) {
    thread_.events().unwatch(fromDriver_->notified, fromDriverNotified_);
    fromDriver_.reset();
  }
  agreed_ = 0;
  return true;
}

void Console::takeTurns() noexcept {
  for (const auto& port : ports_) {
    port->takeTurn();
  }
  hear();
}

void Console::sizeChanged() noexcept {
  for (std::size_t port = 0; port < ports_.size(); ++port) {
    const std::uint32_t size = sizes_[port].load(std::memory_order_relaxed);
    if (size != 0) {
      conversation_.setSize(port, unpacked(size));
    }
  }
  if ((agreed_ & (kMultiport | kSize)) == kSize) {
    interrupts_->configChanged();  // 5.3.6.1
  }
  say();
}

void Console::emergencyWritten() noexcept {
  std::array<char, kEmergencyBytes> bytes;
  std::size_t count = 0;
  {
    const std::lock_guard lock(emergencyMutex_);
    count = emergency_.copy(bytes.data(), bytes.size());
    emergency_.clear();
  }
  for (std::size_t i = 0; i < count; ++i) {
    ports_[0]->putEmergency(static_cast<std::uint8_t>(bytes[i]));
  }
}

void Console::hear() noexcept {
  if (!fromDriver_ || isBroken_) {
    return;
  }
  Queue& queue = fromDriver_->queue;
  for (unsigned messages = 0;; ++messages) {
    if (messages == kMessagesPerTurn) {
      thread_.events().post(turns_);
      break;
    }
    const Queue::Fetched fetched = queue.fetch(chain_);
    if (fetched == Queue::Fetched::kBroken) {
      broken();
      return;
    }
    if (fetched == Queue::Fetched::kNone) {
      if (!queue.enableNotifications()) {
        break;
      }
      continue;
    }
    std::array<std::uint8_t, sizeof(ControlMessage)> message;
    const std::size_t bytes = copyFrom(chain_.readable, 0, message);
    queue.publishUsed(chain_.head, 0);
    if (const auto opened = conversation_.hear(memory::ConstBytes(message).first(bytes))) {
      ports_[opened->port]->setListens(opened->open);
      if (options_.onGuestOpen) {
        options_.onGuestOpen(opened->port, opened->open);
      }
    }
  }
  if (queue.needsInterrupt()) {
    interrupts_->queueUsed(fromDriver_->index);
  }
  say();
}

void Console::say() noexcept {
  if (!toDriver_ || isBroken_) {
    return;
  }
  Queue& queue = toDriver_->queue;
  while (conversation_.hasMore()) {
    const Queue::Fetched fetched = queue.fetch(chain_);
    if (fetched == Queue::Fetched::kBroken) {
      broken();
      return;
    }
    if (fetched == Queue::Fetched::kNone) {
      if (!queue.enableNotifications()) {
        break;
      }
      continue;
    }
    std::array<std::uint8_t, Conversation::kMaxMessageBytes> message;
    const std::size_t bytes = conversation_.say(message);
    const std::size_t written = copyTo(chain_.writable, 0, memory::ConstBytes(message).first(bytes));
    queue.publishUsed(chain_.head, static_cast<std::uint32_t>(written));
  }
  if (queue.needsInterrupt()) {
    interrupts_->queueUsed(toDriver_->index);
  }
}

void Console::broken() noexcept {
  isBroken_ = true;
  interrupts_->deviceBroken("console: a queue of the driver is not what the specification asks for");
}

void Console::hostClosed(std::size_t port) noexcept {
  conversation_.setHostOpen(port, false);
  say();
}

}  // namespace vmmhost::kvm::virtio::console
