#include "worker-kvm/virtio/vsock/mux.h"

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

#include "worker-kvm/virtio/queue.h"

namespace vmmhost::kvm::virtio::vsock {

namespace {

// Ports of clients of the host, as others count them: from 2^30 on, where no service is looked for.
constexpr std::uint32_t kFirstClientPort = std::uint32_t{1} << 30;
constexpr std::uint32_t kClientPortBits = kFirstClientPort - 1;
constexpr std::uint64_t kShareOfTheRest = 8;

}  // namespace

Header Mux::frame() const noexcept {
  Header header;
  header.sourceCid = kHostCid;
  header.destinationCid = guestCid_;
  return header;
}

Connection* Mux::find(const Key& key) noexcept {
  // Packets of a connection mostly come one after the other.
  if (lastFound_ != nullptr && lastFound_->key() == key) {
    return lastFound_;
  }
  const auto found = connections_.find(key);
  if (found == connections_.end()) {
    return nullptr;
  }
  lastFound_ = found->second.get();
  return lastFound_;
}

std::uint32_t Mux::grantShare() noexcept {
  const std::uint64_t free = limits_.allShares - granted_;
  const std::uint64_t kept = (limits_.maxConnections - connections()) * limits_.smallestShare;
  const std::uint64_t share = std::bit_floor(free > kept ? (free - kept) / kShareOfTheRest : 0);
  return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(share, limits_.smallestShare, limits_.largestShare));
}

Connection* Mux::add(const Key& key, Connection::State state) noexcept {
  if (connections() >= limits_.maxConnections) {
    return nullptr;
  }
  try {
    auto added = std::make_unique<Connection>(*this, surroundings_, key, state, grantShare());
    Connection& connection = *added;
    connection.generation = ++generation_;
    connections_.emplace(key, std::move(added));
    granted_ += connection.allocation();
    limitTime(connection, connecting_, limits_.connectTimeout);
    return &connection;
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

void Mux::remove(Connection& connection) noexcept {
  lastFound_ = nullptr;
  granted_ -= connection.allocation();
  asking_ -= connection.state() == Connection::State::kAsking ? 1 : 0;
  if (connection.state() == Connection::State::kLingering) {
    lingering_.erase(&connection);
  } else {
    connections_.erase(connection.key());
  }
}

void Mux::carryOut(Connection& connection, Connection::Next next) noexcept {
  switch (next) {
    case Connection::Next::kGoOn:
      schedule(connection);
      return;
    case Connection::Next::kReset:
      if (!connection.isUnknownToGuest()) {
        resets_.push_back({connection.key(), kTypeStream});
      }
      remove(connection);
      return;
    case Connection::Next::kLinger: {
      resets_.push_back({connection.key(), kTypeStream});
      lastFound_ = nullptr;
      auto node = connections_.extract(connection.key());
      connection.outputHook.unlink();
      connection.linger();
      lingering_.emplace(&connection, std::move(node.mapped()));
      return;
    }
    case Connection::Next::kEnd:
      remove(connection);
      return;
  }
}

void Mux::schedule(Connection& connection) noexcept {
  if (connection.hasOutput() && !connection.outputHook.is_linked()) {
    output_.push_back(connection);
  }
}

void Mux::receive(const Header& header, std::span<const iovec> behind, std::uint64_t behindBytes) noexcept {
  const Verdict verdict = judge(header, behindBytes, guestCid_);
  if (verdict == Verdict::kDrop) {
    return;
  }
  const Key key{header.destinationPort, header.sourcePort};
  const bool isReset = header.operation == Operation::kReset;
  if (header.type != kTypeStream) {
    if (!isReset) {
      resets_.push_back({key, header.type});
    }
    return;
  }
  Connection* connection = find(key);
  if (connection == nullptr) {
    if (verdict == Verdict::kAccept && header.operation == Operation::kRequest) {
      handleRequest(header);
    } else if (!isReset) {
      resets_.push_back({key, kTypeStream});
    }
    return;
  }
  if (isReset) {
    remove(*connection);
    return;
  }
  if (verdict == Verdict::kReset || header.operation == Operation::kRequest) {
    carryOut(*connection, Connection::Next::kReset);
    return;
  }
  iovec piece;
  std::span<const iovec> payload;
  if (header.operation == Operation::kReadWrite) {
    piece = firstOfSlice(behind, 0, header.length);
    payload = {&piece, 1};
    if (piece.iov_len < header.length) {
      scratch_.clear();
      slice(behind, 0, header.length, scratch_);
      payload = scratch_;
    }
  }
  const Connection::State before = connection->state();
  const Connection::Next next = connection->receive(header, payload);
  if (before == Connection::State::kRequested && connection->state() == Connection::State::kEstablished) {
    connection->deadlineHook.unlink();
  }
  carryOut(*connection, next);
}

void Mux::handleRequest(const Header& header) noexcept {
  const Key key{header.destinationPort, header.sourcePort};
  Connection* connection = asking_ < limits_.maxAsking ? add(key, Connection::State::kAsking) : nullptr;
  if (connection == nullptr) {
    resets_.push_back({key, kTypeStream});
    return;
  }
  ++asking_;
  const Connection::Next next = connection->receive(header, {});
  const bool isAsked =
      next == Connection::Next::kGoOn && surroundings_.askHost({key, connection->generation}, header.destinationPort);
  if (!isAsked) {
    carryOut(*connection, Connection::Next::kReset);
  }
}

void Mux::hostAnswered(const Ticket& ticket, Fd socket) noexcept {
  Connection* connection = find(ticket.key);
  if (connection == nullptr || connection->generation != ticket.generation ||
      connection->state() != Connection::State::kAsking) {
    return;  // it took too long
  }
  if (!socket) {
    carryOut(*connection, Connection::Next::kReset);
    return;
  }
  --asking_;
  connection->deadlineHook.unlink();
  connection->accept(std::move(socket));
  schedule(*connection);
}

std::optional<std::uint32_t> Mux::freeHostPort(std::uint32_t guestPort) noexcept {
  // Never as many in a row are taken.
  for (std::size_t tries = 0; tries <= limits_.maxConnections; ++tries) {
    const std::uint32_t port = kFirstClientPort | (nextHostPort_++ & kClientPortBits);
    if (!connections_.contains({port, guestPort})) {
      return port;
    }
  }
  return std::nullopt;
}

void Mux::connectToGuest(Fd socket, std::uint32_t port) noexcept {
  // With their resets, which outlive them: a guest that takes no packet does not make them more and more.
  if (connections() + resets_.size() >= limits_.maxConnections) {
    return;
  }
  const auto hostPort = freeHostPort(port);
  Connection* connection = hostPort ? add({*hostPort, port}, Connection::State::kRequested) : nullptr;
  if (connection == nullptr) {
    return;
  }
  connection->request();
  connection->adopt(std::move(socket));
  schedule(*connection);
}

void Mux::socketReady(Connection& connection, std::uint32_t events) noexcept {
  carryOut(connection, connection.handleSocket(events));
  surroundings_.socketsChanged();
}

std::size_t Mux::fillReset(Buffer& buffer) noexcept {
  const Reset reset = resets_.front();
  resets_.pop_front();
  Header header = frame();
  header.sourcePort = reset.key.hostPort;
  header.destinationPort = reset.key.guestPort;
  header.type = reset.type;
  header.operation = Operation::kReset;
  copyHeaderTo(buffer.pieces, formatHeader(header));
  buffer.used = kHeaderBytes;
  return 1;
}

std::size_t Mux::fill(std::span<Buffer> buffers) noexcept {
  // One of each in turn.
  if (!resets_.empty() && (output_.empty() || !std::exchange(resetsWereServed_, true))) {
    return fillReset(buffers[0]);
  }
  resetsWereServed_ = false;
  if (output_.empty()) {
    return 0;
  }
  Connection& connection = output_.front();
  output_.pop_front();
  const bool wasClosing = connection.isClosing();
  const Connection::Filled filled = connection.fill(buffers, frame(), scratch_);
  if (!wasClosing && connection.isClosing()) {
    limitTime(connection, closing_, limits_.closeTimeout);
  } else if (connection.hasUntaken() && !connection.deadlineHook.is_linked()) {
    limitTime(connection, untaken_, limits_.takeTimeout);
  }
  carryOut(connection, filled.next);
  return filled.count;
}

void Mux::limitTime(Connection& connection, DeadlineList& list, std::chrono::milliseconds time) noexcept {
  connection.deadline = Clock::now() + time;
  list.push_back(connection);
  arm(connection.deadline);
}

void Mux::arm(Clock::time_point time) noexcept {
  if (!armed_ || time < *armed_) {
    armed_ = time;
    surroundings_.arm(time);
  }
}

void Mux::expire(Clock::time_point now) noexcept {
  armed_.reset();
  for (DeadlineList* list : {&connecting_, &closing_}) {
    while (!list->empty() && list->front().deadline <= now) {
      carryOut(list->front(), Connection::Next::kReset);
    }
    if (!list->empty()) {
      arm(list->front().deadline);
    }
  }
  while (!untaken_.empty() && untaken_.front().deadline <= now) {
    Connection& connection = untaken_.front();
    connection.takeUntaken();
    schedule(connection);
  }
  if (!untaken_.empty()) {
    arm(untaken_.front().deadline);
  }
}

void Mux::clear() noexcept {
  lastFound_ = nullptr;
  connections_.clear();
  lingering_.clear();
  resets_.clear();
  asking_ = 0;
  granted_ = 0;
}

}  // namespace vmmhost::kvm::virtio::vsock
