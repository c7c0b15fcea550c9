#include "worker-kvm/virtio/vsock/connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "worker-kvm/io/calls.h"
#include "worker-kvm/virtio/queue.h"
#include "worker-kvm/virtio/vsock/rules.h"

namespace vmmhost::kvm::virtio::vsock {

namespace {

constexpr std::uint32_t kEnds = EPOLLRDHUP | EPOLLHUP | EPOLLERR;

// What may be left in a socket: little beside any socket's buffer, so that no peer waits for room because of it.
constexpr std::uint32_t kMostUntaken = 4096;
constexpr unsigned kMostUntakenReads = 32;

// The number of bytes, or minus an errno value. Of a socket that does not block.
[[gnu::hot]] ssize_t writePieces(int socket, std::span<const iovec> pieces) noexcept {
  while (true) {
    // SIGPIPE is ignored, or blocked on this thread. The first is quicker, and most packets are of one piece.
    ssize_t count = 0;
    if (pieces.size() == 1) {
      count = io::sendTo(socket, pieces[0].iov_base, pieces[0].iov_len, kSendFlags);
    } else {
      count = ::writev(socket, pieces.data(), static_cast<int>(pieces.size()));
      count = count < 0 ? -errno : count;
    }
    if (count != -EINTR) {
      return count;
    }
  }
}

ssize_t readPieces(int socket, std::span<iovec> pieces, bool& hadAncillary) noexcept {
  msghdr message{};
  message.msg_iov = pieces.data();
  message.msg_iovlen = pieces.size();
  while (true) {
    // Not readv: this works on sockets alone, and never blocks. Descriptors that a client sends along are dropped.
    const ssize_t count = ::recvmsg(socket, &message, MSG_DONTWAIT);
    if (count >= 0 || errno != EINTR) {
      hadAncillary = count >= 0 && (message.msg_flags & MSG_CTRUNC) != 0;
      return count >= 0 ? count : -errno;
    }
  }
}

// The bytes stay in the socket. Whether descriptors came with them is seen when they are taken out.
[[gnu::hot]] ssize_t peek(int socket, const iovec& piece) noexcept {
  while (true) {
    const ssize_t count = io::receiveFrom(socket, piece.iov_base, piece.iov_len, kPeekFlags);
    if (count != -EINTR) {
      return count;
    }
  }
}

}  // namespace

void Connection::adopt(Fd socket) noexcept {
  socket_ = std::move(socket);
  poller_.watch(socket_.get(), *this);
}

void Connection::accept(Fd socket) noexcept {
  adopt(std::move(socket));
  beginToMove();
  wanted_ |= kResponse;
}

void Connection::beginToMove() noexcept {
  state_ = State::kEstablished;
  const int offset = 0;
  mayLeave_ = ::setsockopt(socket_.get(), SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset) == 0;
}

bool Connection::hasUnread() const noexcept {
  std::uint8_t byte = 0;
  return peek(socket_.get(), {&byte, 1}) > 0;
}

void Connection::closeSocket() noexcept {
  if (socket_) {
    takeUntaken();  // a peer is told of an error if something is in there
    poller_.unwatch(socket_.get(), *this);
    socket_.reset();
  }
  readable_ = false;
  pending_.clear();
}

Connection::Next Connection::receive(const Header& header, std::span<const iovec> payload) noexcept {
  if (!peer_.update(header)) {
    return Next::kReset;
  }
  if (peer_.available() > 0) {
    creditWasRequested_ = false;
  }
  switch (state_) {
    case State::kRequested:
      return header.operation == Operation::kResponse ? establish() : Next::kReset;
    case State::kEstablished:
      break;
    case State::kClosing:
      // What is under way when both directions end is of no interest; the guest's own end of it is.
      if (header.operation == Operation::kShutdown) {
        guestShutdown_ |= header.flags & kShutdownBoth;
      }
      return guestShutdown_ == kShutdownBoth ? Next::kReset : Next::kGoOn;
    case State::kAsking:
      // The request was the first packet, and credit is what was wanted of it.
      return header.operation == Operation::kRequest ? Next::kGoOn : Next::kReset;
    case State::kLingering:
      return Next::kReset;
  }
  switch (header.operation) {
    case Operation::kReadWrite:
      return receiveData(payload, header.length);
    case Operation::kShutdown:
      return receiveShutdown(header.flags);
    case Operation::kCreditUpdate:
      return Next::kGoOn;
    case Operation::kCreditRequest:
      wanted_ |= kCreditUpdate;
      return Next::kGoOn;
    default:
      return Next::kReset;
  }
}

Connection::Next Connection::establish() noexcept {
  char line[24];
  const int length = std::snprintf(line, sizeof line, "OK %u\n", key_.hostPort);
  const iovec piece{line, static_cast<std::size_t>(length)};
  // The first bytes of a socket always fit: otherwise the client is gone. It may have said all that it had to.
  const bool isHeard = writePieces(socket_.get(), {&piece, 1}) == length;
  if (!isHeard && !hasUnread()) {
    return Next::kReset;
  }
  beginToMove();
  if (!isHeard) {
    stopWriting();
  }
  return Next::kGoOn;
}

Connection::Next Connection::receiveData(std::span<const iovec> payload, std::uint32_t bytes) noexcept {
  if ((guestShutdown_ & kShutdownSend) != 0 || !own_.receive(bytes)) {
    return Next::kReset;
  }
  if (bytes == 0) {
    return Next::kGoOn;
  }
  if (hostIsDeaf_) {
    noteForwarded(bytes);
    return Next::kGoOn;
  }
  std::uint32_t written = 0;
  if (pending_.isEmpty()) {
    const ssize_t count = writePieces(socket_.get(), payload);
    if (count < 0 && count != -EAGAIN) {
      noteForwarded(bytes);
      stopWriting();
      return Next::kGoOn;
    }
    written = count < 0 ? 0 : static_cast<std::uint32_t>(count);
    noteForwarded(written);
    if (untaken_ >= kMostUntaken / 2 || untakenReads_ >= kMostUntakenReads / 2) {
      takeUntaken();  // the peer has something to wake up for anyhow
    }
  }
  if (written < bytes) {
    if (!pending_.append(payload, written)) {
      return Next::kReset;
    }
    if (!std::exchange(roomIsWatched_, true)) {
      poller_.watchRoom(socket_.get(), true, *this);
    }
  }
  return Next::kGoOn;
}

void Connection::noteForwarded(std::uint32_t bytes) noexcept {
  own_.forward(bytes);
  if (own_.wantsUpdate()) {
    wanted_ |= kCreditUpdate;
  }
}

void Connection::stopWriting() noexcept {
  noteForwarded(static_cast<std::uint32_t>(pending_.size()));
  pending_.clear();
  hostIsDeaf_ = true;
  shutdownWanted_ |= kShutdownReceive;
}

Connection::Next Connection::receiveShutdown(std::uint32_t flags) noexcept {
  const std::uint32_t added = flags & kShutdownBoth & ~guestShutdown_;
  guestShutdown_ |= added;
  if (guestShutdown_ == kShutdownBoth) {
    return pending_.isEmpty() ? Next::kReset : Next::kLinger;
  }
  if ((added & kShutdownReceive) != 0) {
    ::shutdown(socket_.get(), SHUT_RD);
  }
  if ((added & kShutdownSend) != 0 && pending_.isEmpty()) {
    ::shutdown(socket_.get(), SHUT_WR);
  }
  return Next::kGoOn;
}

Connection::Next Connection::flush() noexcept {
  while (!pending_.isEmpty()) {
    iovec pieces[2];
    const std::size_t pieceCount = pending_.front(pieces);
    const ssize_t count = writePieces(socket_.get(), {pieces, pieceCount});
    if (count == -EAGAIN) {
      return Next::kGoOn;
    }
    if (count < 0) {
      stopWriting();
      break;
    }
    pending_.consume(static_cast<std::size_t>(count));
    noteForwarded(static_cast<std::uint32_t>(count));
  }
  if (state_ == State::kLingering) {
    return Next::kEnd;
  }
  if (std::exchange(roomIsWatched_, false)) {
    poller_.watchRoom(socket_.get(), false, *this);
  }
  if ((guestShutdown_ & kShutdownSend) != 0) {
    ::shutdown(socket_.get(), SHUT_WR);
  }
  return Next::kGoOn;
}

Connection::Next Connection::handleSocket(std::uint32_t events) noexcept {
  readable_ = readable_ || (events & (EPOLLIN | kEnds)) != 0;
  isEnding_ = isEnding_ || (events & kEnds) != 0;
  const bool isGone = (events & (EPOLLHUP | EPOLLERR)) != 0;
  switch (state_) {
    case State::kRequested:
      return isGone && !hasUnread() ? Next::kReset : Next::kGoOn;
    case State::kLingering:
      return isGone ? Next::kEnd : flush();
    case State::kEstablished:
      askForCredit();
      if (isGone && !hostIsDeaf_) {
        stopWriting();
        if ((guestShutdown_ & kShutdownReceive) != 0) {
          shutdownWanted_ = kShutdownBoth;  // nobody reads up to the end of file
        }
        return Next::kGoOn;
      }
      return (events & EPOLLOUT) != 0 && !pending_.isEmpty() ? flush() : Next::kGoOn;
    case State::kAsking:
    case State::kClosing:
      break;
  }
  return Next::kGoOn;
}

void Connection::put(Buffer& buffer, const Header& frame, Operation operation, std::uint32_t length,
                     std::uint32_t flags) noexcept {
  Header header = frame;
  header.sourcePort = key_.hostPort;
  header.destinationPort = key_.guestPort;
  header.operation = operation;
  header.length = length;
  header.flags = flags;
  own_.stamp(header);
  wanted_ &= static_cast<std::uint8_t>(~kCreditUpdate);  // every packet is one
  copyHeaderTo(buffer.pieces, formatHeader(header));
  buffer.used = static_cast<std::uint32_t>(kHeaderBytes) + length;
}

Connection::Filled Connection::fill(std::span<Buffer> buffers, const Header& frame,
                                    std::vector<iovec>& scratch) noexcept {
  const auto tell = [&](Operation operation, std::uint32_t flags = 0) {
    put(buffers[0], frame, operation, 0, flags);
    return Filled{1, Next::kGoOn};
  };
  if ((wanted_ & kRequest) != 0) {
    wanted_ &= static_cast<std::uint8_t>(~kRequest);
    return tell(Operation::kRequest);
  }
  if ((wanted_ & kResponse) != 0) {
    wanted_ &= static_cast<std::uint8_t>(~kResponse);
    return tell(Operation::kResponse);
  }
  if (canRead()) {
    const Filled filled = read(buffers, frame, scratch);
    if (filled.count != 0 || filled.next != Next::kGoOn) {
      return filled;
    }
  }
  if (shutdownWanted_ != shutdownTold_) {
    shutdownTold_ = shutdownWanted_;
    const Filled told = tell(Operation::kShutdown, shutdownTold_);
    if (shutdownTold_ == kShutdownBoth) {
      closeSocket();
      state_ = State::kClosing;
      wanted_ = 0;
    }
    return told;
  }
  if ((wanted_ & kCreditUpdate) != 0) {
    return tell(Operation::kCreditUpdate);
  }
  if ((wanted_ & kCreditRequest) != 0) {
    wanted_ &= static_cast<std::uint8_t>(~kCreditRequest);
    return tell(Operation::kCreditRequest);
  }
  return {};
}

Connection::Filled Connection::read(std::span<Buffer> buffers, const Header& frame,
                                    std::vector<iovec>& scratch) noexcept {
  return leavesUntaken() ? readAndLeave(buffers[0], frame) : readAndTake(buffers, frame, scratch);
}

Connection::Filled Connection::readAndLeave(Buffer& buffer, const Header& frame) noexcept {
  // Whatever does not fit into it comes next.
  const iovec piece = firstOfSlice(buffer.pieces, kHeaderBytes, std::min(peer_.available(), kMostUntaken - untaken_));
  const ssize_t got = peek(socket_.get(), piece);
  if (got <= 0) {
    return handleNothing(got);
  }
  const auto bytes = static_cast<std::uint32_t>(got);
  untaken_ += bytes;
  ++untakenReads_;
  lastWasSmall_ = bytes < piece.iov_len;
  // That was all, and an edge tells of more. Unless the end has been told of already.
  readable_ = !lastWasSmall_ || isEnding_;
  peer_.send(bytes);
  put(buffer, frame, Operation::kReadWrite, bytes, 0);
  askForCredit();
  return {1, Next::kGoOn};
}

Connection::Filled Connection::handleNothing(ssize_t got) noexcept {
  // The other end has left without having read all that was written to it, which comes behind all that it had sent: the
  // guest reads as far as ever.
  const bool isAbandoned = got == -ECONNRESET;
  if (got == 0 || isAbandoned) {
    hostIsDone_ = true;
    shutdownWanted_ |= kShutdownSend;
    if (isAbandoned && !hostIsDeaf_) {
      stopWriting();
    }
    return {};
  }
  readable_ = false;
  return got == -EAGAIN ? Filled{} : Filled{0, Next::kReset};
}

Connection::Filled Connection::readAndTake(std::span<Buffer> buffers, const Header& frame,
                                           std::vector<iovec>& scratch) noexcept {
  const std::uint64_t limit = peer_.available();
  std::uint64_t room = 0;
  scratch.clear();
  std::uint8_t taken[kMostUntaken];
  if (untaken_ > 0) {
    scratch.push_back({taken, untaken_});
  }
  std::size_t usable = 0;
  // No more than the kernel takes at a time (IOV_MAX); one buffer has at most as many pieces as a queue has entries.
  while (usable < buffers.size() && room < limit &&
         (usable == 0 || scratch.size() + buffers[usable].pieces.size() <= kMaxQueueSize)) {
    room += slice(buffers[usable].pieces, kHeaderBytes, limit - room, scratch);
    ++usable;
  }
  bool hadAncillary = false;
  const ssize_t got = readPieces(socket_.get(), scratch, hadAncillary);
  if (got <= 0) {
    return handleNothing(got);
  }
  auto left = static_cast<std::uint64_t>(got);
  if (untaken_ > 0) {
    left -= noteTaken(left);
  }
  // Less than there was room for: that was all, and an edge tells of more. Unless the end has been told of already, or
  // descriptors in between have cut it short.
  const bool wasCutShort = hadAncillary || untaken_ > 0;
  if (left < room && !isEnding_ && !wasCutShort) {
    readable_ = false;
  }
  lastWasSmall_ = left <= kMostUntaken;
  peer_.send(static_cast<std::uint32_t>(left));
  Filled filled;
  while (left > 0) {
    Buffer& buffer = buffers[filled.count++];
    const auto length = static_cast<std::uint32_t>(std::min(left, buffer.bytes - kHeaderBytes));
    put(buffer, frame, Operation::kReadWrite, length, 0);
    left -= length;
  }
  askForCredit();
  return filled;
}

bool Connection::leavesUntaken() const noexcept {
  return mayLeave_ && lastWasSmall_ && untaken_ < kMostUntaken && untakenReads_ < kMostUntakenReads;
}

std::uint32_t Connection::noteTaken(std::uint64_t bytes) noexcept {
  const auto taken = static_cast<std::uint32_t>(std::min<std::uint64_t>(bytes, untaken_));
  untaken_ -= taken;
  if (untaken_ == 0) {
    untakenReads_ = 0;
    deadlineHook.unlink();
  }
  return taken;
}

void Connection::takeUntaken() noexcept {
  std::uint8_t bytes[kMostUntaken];
  while (untaken_ > 0) {
    iovec piece{bytes, untaken_};
    bool hadAncillary = false;
    const ssize_t got = readPieces(socket_.get(), {&piece, 1}, hadAncillary);
    noteTaken(got > 0 ? static_cast<std::uint64_t>(got) : untaken_);
    readable_ = readable_ || hadAncillary;  // reading may have stopped there
  }
}

void Connection::askForCredit() noexcept {
  if (mayRead() && peer_.available() == 0 && !std::exchange(creditWasRequested_, true)) {
    wanted_ |= kCreditRequest;
  }
}

}  // namespace vmmhost::kvm::virtio::vsock
