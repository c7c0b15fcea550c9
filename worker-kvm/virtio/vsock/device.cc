#include "worker-kvm/virtio/vsock/device.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "vmmhost/error.h"
#include "worker-kvm/virtio/features.h"
#include "worker-kvm/virtio/vsock/rules.h"

namespace vmmhost::kvm::virtio::vsock {

namespace {

constexpr std::uint64_t kStream = featureBit(0);  // 5.10.3

constexpr std::uint16_t kQueueSizes[] = {256, 256, 64};
constexpr std::uint32_t kTransportReset = 0;  // 5.10.6.7

// What is done before other descriptors have their turn: packets of the guest, turns of connections.
constexpr unsigned kPacketsAtOnce = 128;
constexpr unsigned kTurnsAtOnce = 32;

// Of the transmit queue.
constexpr unsigned kShownParts = 8;
constexpr unsigned kAnsweredParts = 16;
constexpr int kBusyDelays = 8;  // times usedDelay: how long it takes once more, if others were shown meanwhile

Fd makeTimer() {
  Fd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer) {
    throw systemError("timerfd_create", errno);
  }
  return timer;
}

void setTimer(const Fd& timer, int flags, std::chrono::nanoseconds time) noexcept {
  itimerspec at{};
  at.it_value = {static_cast<time_t>(time.count() / 1'000'000'000), static_cast<long>(time.count() % 1'000'000'000)};
  ::timerfd_settime(timer.get(), flags, &at, nullptr);
}

}  // namespace

void Vsock::Surroundings::watch(int descriptor, io::EventThread::Source& source) noexcept {
  device_.thread_->events().watch(descriptor, EPOLLIN | EPOLLRDHUP | EPOLLET, source);
}
void Vsock::Surroundings::watchRoom(int descriptor, bool isWatched, io::EventThread::Source& source) noexcept {
  device_.thread_->events().change(descriptor, EPOLLIN | EPOLLRDHUP | EPOLLET | (isWatched ? EPOLLOUT : 0U), source);
}
void Vsock::Surroundings::unwatch(int descriptor, const io::EventThread::Source& source) noexcept {
  device_.thread_->events().unwatch(descriptor, source);
}
void Vsock::Surroundings::arm(Clock::time_point time) noexcept {
  setTimer(device_.timer_, TFD_TIMER_ABSTIME, time.time_since_epoch());
}
bool Vsock::Surroundings::askHost(const Ticket& ticket, std::uint32_t port) noexcept {
  return device_.connector_.ask(device_, ticket, port);
}

Vsock::Vsock(const Options& options, HostConnector& connector)
    : options_(options),
      connector_(connector),
      timer_(makeTimer()),
      usedTimer_(makeTimer()),
      inboxFilled_([this] { takeInbox(); }),
      surroundings_(*this),
      mux_(surroundings_, options.guestCid, options.limits),
      receiveWake_(*this, &Vsock::pump),
      transmitWake_(*this, &Vsock::pump),
      eventWake_(*this, &Vsock::sendEvent),
      timerWake_(*this, &Vsock::expire),
      usedTimerWake_(*this, &Vsock::usedTimerRan),
      chains_(kBuffersAtOnce),
      buffers_(kBuffersAtOnce) {
}

Vsock::~Vsock() {
  if (thread_) {
    thread_->end();  // sockets are given up where they are watched
  }
}

std::uint64_t Vsock::features() const noexcept {
  return kIndirectDesc | kEventIdx | kStream;
}

std::span<const std::uint16_t> Vsock::queueSizes() const noexcept {
  return kQueueSizes;
}

void Vsock::readConfig(std::uint64_t offset, std::span<std::uint8_t> data) noexcept {
  // 5.10.4: struct virtio_vsock_config, which is little-endian as this machine is.
  std::uint8_t config[sizeof options_.guestCid];
  std::memcpy(config, &options_.guestCid, sizeof config);
  readBytes(config, offset, data);
}

void Vsock::connect(Interrupts& interrupts) {
  interrupts_ = &interrupts;
  std::vector<int> signals = interrupts.descriptors();
  const std::vector<int> more = connector_.descriptors();
  signals.insert(signals.end(), more.begin(), more.end());
  const int timers[] = {timer_.get(), usedTimer_.get()};
  DeviceThread::Server& server = *this;
  thread_ = std::make_unique<DeviceThread>(
      server, name(),
      threadRules(options_.firstDescriptor, static_cast<int>(options_.limits.maxConnections), timers, signals));
  // Edges do for these: nobody has to read them, which saves a system call each time.
  thread_->events().watch(timer_.get(), EPOLLIN | EPOLLET, timerWake_);
  thread_->events().watch(usedTimer_.get(), EPOLLIN | EPOLLET, usedTimerWake_);
}

// Something on each free number below ours: what was closed there has left a hole for all that comes to fall into.
void Vsock::plugHoles() {
  while (true) {
    Fd plug(::eventfd(0, EFD_CLOEXEC));
    if (!plug || plug.get() >= options_.firstDescriptor) {
      return;
    }
    plugs_.push_back(std::move(plug));
  }
}

Fd Vsock::place(Fd socket) {
  const int flags = ::fcntl(socket.get(), F_GETFL);
  if (flags < 0 || (flags & O_NONBLOCK) == 0) {
    throw Error(ErrorCode::kInvalidArgument, "a socket for vsock is none, or one that blocks");
  }
  const auto end = options_.firstDescriptor + static_cast<int>(options_.limits.maxConnections);
  const bool isBelow = socket.get() < options_.firstDescriptor;
  Fd placed;
  if (!isBelow) {
    placed = std::move(socket);
  } else if (options_.duplicates) {
    placed.reset(::fcntl(socket.get(), F_DUPFD_CLOEXEC, options_.firstDescriptor));
  } else {
    socket.reset();  // its number is the first to be filled
    plugHoles();
    throw Error(ErrorCode::kUnavailable, "a socket for vsock came under a number of something else", "try again", true);
  }
  if (!placed || placed.get() >= end) {
    throw Error(ErrorCode::kResourceExhausted, "the VM has as many vsock connections as it can have", {}, true);
  }
  return placed;
}

template <typename Put>
void Vsock::post(Put put) noexcept {
  {
    const std::lock_guard lock(mutex_);
    put(inbox_);
  }
  thread_->events().post(inboxFilled_);
}

void Vsock::connectToGuest(Fd socket, std::uint32_t port) {
  Fd placed = place(std::move(socket));
  post([&](Inbox& inbox) { inbox.arrivals.push_back({std::move(placed), port, std::nullopt}); });
}

void Vsock::hostAnswered(const Ticket& ticket, Fd socket) noexcept {
  Fd placed;
  if (socket) {
    try {
      placed = place(std::move(socket));
    } catch (const Error&) {
      // Then there is no connection, which the guest is told.
    }
  }
  post([&](Inbox& inbox) { inbox.arrivals.push_back({std::move(placed), 0, ticket}); });
}

void Vsock::announceTransportReset() noexcept {
  post([](Inbox& inbox) { inbox.transportReset = true; });
}

void Vsock::takeInbox() noexcept {
  Inbox inbox;
  {
    const std::lock_guard lock(mutex_);
    std::swap(inbox, inbox_);
  }
  if (inbox.transportReset) {
    mux_.clear();
    eventWaits_ = true;
    sendEvent();
  }
  for (Arrival& arrival : inbox.arrivals) {
    if (!isActive()) {
      break;  // there is no driver: they are closed
    }
    if (arrival.ticket) {
      mux_.hostAnswered(*arrival.ticket, std::move(arrival.socket));
    } else {
      mux_.connectToGuest(std::move(arrival.socket), arrival.port);
    }
  }
  pump();
}

void Vsock::start(Activation activation) noexcept {
  queues_ = std::move(activation.queues);
  queues_.resize(kQueueCount);
  Wake* const wakes[] = {&receiveWake_, &transmitWake_, &eventWake_};
  for (auto& active : queues_) {
    if (active) {
      active->queue.disableNotifications();
      thread_->events().watch(active->notified, EPOLLIN | EPOLLET, *wakes[active->index]);
    }
  }
  sendEvent();
  pump();
}

bool Vsock::stop() noexcept {
  mux_.clear();
  connectionCount_ = 0;
  const Wake* const wakes[] = {&receiveWake_, &transmitWake_, &eventWake_};
  for (const auto& active : queues_) {
    if (active) {
      thread_->events().unwatch(active->notified, *wakes[active->index]);
    }
  }
  queues_.clear();
  firstFetched_ = 0;
  fetched_ = 0;
  unseen_ = 0;
  eventWaits_ = false;
  return true;
}

void Vsock::broken(const char* reason) noexcept {
  stop();
  interrupts_->deviceBroken(reason);
}

ActiveQueue* Vsock::queue(QueueIndex index) noexcept {
  return isActive() && queues_[index] ? &*queues_[index] : nullptr;
}

void Vsock::interrupt(ActiveQueue& queue) noexcept {
  if (queue.queue.needsInterrupt()) {
    interrupts_->queueUsed(queue.index);
  }
}

void Vsock::goOnLater() noexcept {
  if (!std::exchange(goesOn_, true)) {
    thread_->events().post([this] {
      goesOn_ = false;
      pump();
    });
  }
}

void Vsock::pump() noexcept {
  pumpTransmit();
  pumpReceive();
}

void Vsock::expire() noexcept {
  mux_.expire(Clock::now());
  pumpReceive();
}

void Vsock::pumpTransmit() noexcept {
  ActiveQueue* transmit = queue(kTransmit);
  if (transmit == nullptr || mux_.isStopped()) {
    return;
  }
  transmit->queue.disableNotifications();
  unsigned left = kPacketsAtOnce;
  while (!mux_.isStopped()) {
    const Queue::Fetched fetched = transmit->queue.fetch(packet_);
    if (fetched == Queue::Fetched::kBroken) {
      broken("vsock: the transmit queue breaks the rules");
      return;
    }
    if (fetched == Queue::Fetched::kNone) {
      if (transmit->queue.enableNotifications()) {
        continue;
      }
      break;
    }
    if (left-- == 0) {
      transmit->queue.unfetch();
      goOnLater();
      break;
    }
    // A driver that knows no indirect descriptors has one of its queue in each piece.
    unseen_ += std::max<std::size_t>(packet_.readable.size() + packet_.writable.size(), 1);
    handlePacket();
    transmit->queue.addUsed(packet_.head, 0);
  }
  if (unseen_ * kShownParts >= transmit->queue.size()) {
    showTransmitted();
    interrupt(*transmit);
  } else if (unseen_ > 0 && !usedTimerRuns_) {
    startUsedTimer(options_.usedDelay);
  }
}

void Vsock::startUsedTimer(std::chrono::milliseconds delay) noexcept {
  usedTimerRuns_ = true;
  hasShown_ = false;
  setTimer(usedTimer_, 0, delay);
}

void Vsock::showTransmitted() noexcept {
  queue(kTransmit)->queue.publish();
  unseen_ = 0;
  hasShown_ = true;
}

void Vsock::usedTimerRan() noexcept {
  usedTimerRuns_ = false;
  ActiveQueue* transmit = queue(kTransmit);
  if (transmit == nullptr || unseen_ == 0) {
    return;
  }
  if (hasShown_) {
    // What is unseen now came later. Each time the thread is woken for it is one too many while there is traffic.
    startUsedTimer(kBusyDelays * options_.usedDelay);
    return;
  }
  showTransmitted();
  interrupt(*transmit);
}

void Vsock::signalReceive() noexcept {
  if (!queue(kReceive)->queue.needsInterrupt()) {
    return;
  }
  ActiveQueue* transmit = queue(kTransmit);
  if (transmit != nullptr && unseen_ * kAnsweredParts >= transmit->queue.size() &&
      interrupts_->areToldTogether(kReceive, kTransmit)) {
    showTransmitted();
    transmit->queue.needsInterrupt();  // told by the one that comes now
  }
  interrupts_->queueUsed(kReceive);
}

void Vsock::handlePacket() noexcept {
  HeaderBytes bytes;
  if (!copyHeaderFrom(packet_.readable, bytes)) {
    return;  // nobody to answer
  }
  // Its pieces without the header. The memory of the packet's own list is as good as any other.
  std::size_t skipped = 0;
  std::size_t rest = kHeaderBytes;
  while (skipped < packet_.readable.size() && rest >= packet_.readable[skipped].iov_len) {
    rest -= packet_.readable[skipped++].iov_len;
  }
  const auto behind = std::span(packet_.readable).subspan(skipped);
  if (!behind.empty()) {
    behind[0] = {static_cast<std::uint8_t*>(behind[0].iov_base) + rest, behind[0].iov_len - rest};
  }
  mux_.receive(parseHeader(bytes), behind, packet_.readableBytes - kHeaderBytes);
}

bool Vsock::fetchBuffers() noexcept {
  // Small packets use one at a time: the others wait here.
  if (firstFetched_ < fetched_) {
    return true;
  }
  firstFetched_ = 0;
  fetched_ = 0;
  ActiveQueue& receive = *queue(kReceive);
  while (fetched_ < kBuffersAtOnce) {
    Chain& chain = chains_[fetched_];
    const Queue::Fetched fetched = receive.queue.fetch(chain);
    if (fetched == Queue::Fetched::kBroken) {
      broken("vsock: the receive queue breaks the rules");
      return false;
    }
    if (fetched == Queue::Fetched::kNone) {
      if (fetched_ > 0 || !receive.queue.enableNotifications()) {
        break;
      }
      continue;
    }
    if (chain.writableBytes <= kHeaderBytes) {
      broken("vsock: a receive buffer has no room for a packet");
      return false;
    }
    ++fetched_;
  }
  for (std::size_t i = 0; i < fetched_; ++i) {
    buffers_[i] = {chains_[i].writable, chains_[i].writableBytes, 0};
  }
  return fetched_ > 0;
}

void Vsock::pumpReceive() noexcept {
  ActiveQueue* receive = queue(kReceive);
  if (receive == nullptr) {
    return;
  }
  const bool wasStopped = mux_.isStopped();
  receive->queue.disableNotifications();
  bool anyUsed = false;
  unsigned left = kTurnsAtOnce;
  while (mux_.hasOutput()) {
    if (left-- == 0) {
      goOnLater();
      break;
    }
    if (!fetchBuffers()) {
      if (!isActive()) {
        return;  // it was broken
      }
      break;
    }
    const std::size_t filled = mux_.fill(std::span(buffers_).subspan(firstFetched_, fetched_ - firstFetched_));
    connectionCount_.store(mux_.connections(), std::memory_order_relaxed);  // before the guest can know
    for (const std::size_t end = firstFetched_ + filled; firstFetched_ < end; ++firstFetched_) {
      receive->queue.publishUsed(chains_[firstFetched_].head, buffers_[firstFetched_].used);
    }
    anyUsed = anyUsed || filled > 0;
  }
  if (anyUsed) {
    signalReceive();
  }
  if (wasStopped && !mux_.isStopped()) {
    goOnLater();  // with the packets of the guest that wait
  }
  connectionCount_.store(mux_.connections(), std::memory_order_relaxed);
}

void Vsock::sendEvent() noexcept {
  ActiveQueue* events = queue(kEvent);
  if (events == nullptr || !eventWaits_) {
    return;
  }
  Chain chain;
  Queue::Fetched fetched = events->queue.fetch(chain);
  if (fetched == Queue::Fetched::kNone && events->queue.enableNotifications()) {
    fetched = events->queue.fetch(chain);
  }
  if (fetched == Queue::Fetched::kNone) {
    return;  // the driver notifies
  }
  std::uint8_t event[sizeof kTransportReset];
  std::memcpy(event, &kTransportReset, sizeof event);
  if (fetched == Queue::Fetched::kBroken || copyTo(chain.writable, 0, event) < sizeof event) {
    broken("vsock: the event queue breaks the rules");
    return;
  }
  events->queue.publishUsed(chain.head, sizeof event);
  eventWaits_ = false;
  interrupt(*events);
}

}  // namespace vmmhost::kvm::virtio::vsock
