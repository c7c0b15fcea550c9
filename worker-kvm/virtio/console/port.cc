#include "worker-kvm/virtio/console/port.h"

#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

namespace vmmhost::kvm::virtio::console {

namespace {

// Of one port, before others have their turn.
constexpr unsigned kChainsPerTurn = 64;
constexpr std::uint64_t kBytesPerTurn = 256 * 1024;

}  // namespace

Port::Port(io::EventThread& thread, std::size_t index, Fd socket, PortEvents& events)
    : thread_(thread),
      index_(index),
      socket_(std::move(socket)),
      events_(events),
      socketSource_([this](std::uint32_t ready) { socketReady(ready); }),
      receiveNotified_([this](std::uint32_t) {
        if (std::exchange(lacksBuffers_, false)) {
          watchSocket();
        }
      }),
      transmitNotified_([this](std::uint32_t) {
        if (!isFull_) {
          transmit();
        }
      }) {
}

void Port::start(std::optional<ActiveQueue> receive, std::optional<ActiveQueue> transmit, bool listens) noexcept {
  receive_ = std::move(receive);
  transmit_ = std::move(transmit);
  listens_ = listens;
  // Edges: see the network device.
  if (receive_) {
    thread_.watch(receive_->notified, EPOLLIN | EPOLLET, receiveNotified_);
  }
  if (transmit_) {
    thread_.watch(transmit_->notified, EPOLLIN | EPOLLET, transmitNotified_);
    this->transmit();
  }
  watchSocket();
}

void Port::stop() noexcept {
  if (receive_) {
    thread_.unwatch(receive_->notified, receiveNotified_);
    receive_.reset();
  }
  if (transmit_) {
    thread_.unwatch(transmit_->notified, transmitNotified_);
    transmit_.reset();
  }
  listens_ = lacksBuffers_ = hasOutput_ = wantsTurn_ = isBroken_ = false;
  sent_ = 0;
  isFull_ = emergencyBytes_ != 0;
  watchSocket();
}

void Port::abandon() noexcept {
  emergencyBytes_ = 0;
  isFull_ = false;
  watchSocket();
}

void Port::setListens(bool listens) noexcept {
  listens_ = listens;
  watchSocket();
}

void Port::putEmergency(std::uint8_t byte) noexcept {
  if (hostOpen_ && emergencyBytes_ < kEmergencyBytes) {
    emergency_[emergencyBytes_++] = byte;
    if (!isFull_ && !flushEmergency()) {
      isFull_ = true;
      watchSocket();
    }
  }
}

void Port::takeTurn() noexcept {
  if (std::exchange(wantsTurn_, false) && !isFull_) {
    transmit();
  }
}

void Port::watchSocket() noexcept {
  std::uint32_t events = 0;
  if (hostOpen_) {
    events = (receive_ && listens_ && !lacksBuffers_ && !isBroken_ ? EPOLLIN : 0U) | (isFull_ ? EPOLLOUT : 0U);
  }
  if (events == watched_) {
    return;
  }
  if (events == 0) {
    thread_.unwatch(socket_.get(), socketSource_);
  } else if (watched_ == 0) {
    thread_.watch(socket_.get(), events, socketSource_);
  } else {
    thread_.change(socket_.get(), events, socketSource_);
  }
  watched_ = events;
}

void Port::socketReady(std::uint32_t events) noexcept {
  const bool isOver = (events & (EPOLLERR | EPOLLHUP)) != 0;
  if ((watched_ & EPOLLOUT) != 0 && ((events & EPOLLOUT) != 0 || isOver)) {
    isFull_ = false;
    transmit();
    watchSocket();
  }
  if ((watched_ & EPOLLIN) != 0 && ((events & EPOLLIN) != 0 || isOver)) {
    receive();
  }
}

void Port::receive() noexcept {
  Queue& queue = receive_->queue;
  queue.disableNotifications();
  std::uint64_t bytes = 0;
  for (unsigned chains = 0; chains < kChainsPerTurn && bytes < kBytesPerTurn; ++chains) {
    const Queue::Fetched fetched = queue.fetch(input_);
    if (fetched == Queue::Fetched::kBroken) {
      broken();
      return;
    }
    if (fetched == Queue::Fetched::kNone) {
      if (!queue.enableNotifications()) {
        lacksBuffers_ = true;
        break;
      }
      continue;
    }
    if (input_.writable.empty()) {
      queue.publishUsed(input_.head, 0);
      continue;
    }
    const ssize_t got = ::readv(socket_.get(), input_.writable.data(), static_cast<int>(input_.writable.size()));
    if (got > 0) {
      queue.publishUsed(input_.head, static_cast<std::uint32_t>(got));
      bytes += static_cast<std::uint64_t>(got);
      continue;
    }
    queue.unfetch();
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
      closed();
    }
    break;
  }
  if (queue.needsInterrupt()) {
    events_.used(receive_->index);
  }
  watchSocket();
}

void Port::transmit() noexcept {
  if (!flushEmergency()) {
    isFull_ = true;
    watchSocket();
    return;
  }
  if (!transmit_ || isBroken_) {
    return;
  }
  Queue& queue = transmit_->queue;
  queue.disableNotifications();
  std::uint64_t bytes = 0;
  unsigned chains = 0;
  for (; chains < kChainsPerTurn && bytes < kBytesPerTurn; ++chains) {
    if (!hasOutput_) {
      const Queue::Fetched fetched = queue.fetch(output_);
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
      hasOutput_ = true;
      sent_ = 0;
    }
    if (!sendOutput(bytes)) {
      isFull_ = true;
      break;
    }
  }
  if (queue.needsInterrupt()) {
    events_.used(transmit_->index);
  }
  if (isFull_) {
    watchSocket();
  } else if (chains == kChainsPerTurn || bytes >= kBytesPerTurn) {
    wantsTurn_ = true;
    events_.wantsTurn();
  }
}

// False if the socket is full.
bool Port::sendOutput(std::uint64_t& bytes) noexcept {
  while (hostOpen_ && sent_ < output_.readableBytes) {
    parts_.clear();
    std::uint64_t skip = sent_;
    for (const iovec& part : output_.readable) {
      if (part.iov_len > skip) {
        parts_.push_back({static_cast<std::uint8_t*>(part.iov_base) + skip, part.iov_len - skip});
        skip = 0;
      } else {
        skip -= part.iov_len;
      }
    }
    const ssize_t written = ::writev(socket_.get(), parts_.data(), static_cast<int>(parts_.size()));
    if (written >= 0) {
      sent_ += static_cast<std::uint64_t>(written);
      bytes += static_cast<std::uint64_t>(written);
    } else if (errno == EAGAIN) {
      return false;
    } else if (errno != EINTR) {
      closed();
    }
  }
  // To a port that the host has closed it goes nowhere.
  transmit_->queue.publishUsed(output_.head, 0);
  hasOutput_ = false;
  return true;
}

bool Port::flushEmergency() noexcept {
  while (emergencyBytes_ != 0) {
    const ssize_t written = ::write(socket_.get(), emergency_.data(), emergencyBytes_);
    if (written >= 0) {
      std::copy(emergency_.begin() + written, emergency_.begin() + static_cast<std::ptrdiff_t>(emergencyBytes_),
                emergency_.begin());
      emergencyBytes_ -= static_cast<std::size_t>(written);
    } else if (errno == EAGAIN) {
      return false;
    } else if (errno != EINTR) {
      closed();
    }
  }
  return true;
}

void Port::closed() noexcept {
  hostOpen_ = false;
  isFull_ = false;
  emergencyBytes_ = 0;
  watchSocket();
  events_.hostClosed(index_);
}

void Port::broken() noexcept {
  isBroken_ = true;
  isFull_ = emergencyBytes_ != 0;
  watchSocket();
  events_.portBroken();
}

}  // namespace vmmhost::kvm::virtio::console
