// One connection between a port of the guest and a socket of the host: what flows between them, and how it ends.
// Source: virtio 1.2, 5.10.6.5.
#pragma once

#include <boost/intrusive/list.hpp>
#include <chrono>
#include <compare>
#include <cstdint>
#include <span>
#include <vector>

#include "vmmhost/fd.h"
#include "worker-kvm/io/event_thread.h"
#include "worker-kvm/virtio/vsock/byte_queue.h"
#include "worker-kvm/virtio/vsock/credit.h"
#include "worker-kvm/virtio/vsock/packet.h"

namespace vmmhost::kvm::virtio::vsock {

using Clock = std::chrono::steady_clock;

struct Key {
  std::uint32_t hostPort = 0;
  std::uint32_t guestPort = 0;
  auto operator<=>(const Key&) const = default;
};

// A buffer of the guest for one packet.
struct Buffer {
  std::span<const iovec> pieces;
  std::uint64_t bytes = 0;  // of all pieces: more than kHeaderBytes
  std::uint32_t used = 0;   // of them; set by whoever fills it
};

// Where sockets are watched: edge-triggered, for reading and for the end of the peer.
class Poller {
 public:
  virtual ~Poller() = default;
  virtual void watch(int descriptor, io::EventThread::Source& source) noexcept = 0;
  // Also for room to write, or no longer so. Reports what there is already.
  virtual void watchRoom(int descriptor, bool isWatched, io::EventThread::Source& source) noexcept = 0;
  virtual void unwatch(int descriptor, const io::EventThread::Source& source) noexcept = 0;
};

class Connection final : public io::EventThread::Source {
 public:
  enum class State : std::uint8_t {
    kAsking,     // the guest wants to connect, and the host is being asked
    kRequested,  // a client of the host wants to connect, and the guest is being asked
    kEstablished,
    kClosing,   // the socket is gone, the guest was told, and its reset is waited for
    kLingering  // the guest is done; the socket has not taken everything yet
  };
  // What a step leaves to do.
  enum class Next : std::uint8_t {
    kGoOn,
    kReset,   // it is of no use any more, which the guest has to be told
    kLinger,  // the guest is done and has to be told; the socket is not
    kEnd      // nobody has to be told
  };

  class Owner {
   public:
    virtual ~Owner() = default;
    // Its socket may be read or written, or is at its end. The connection may be gone when it returns.
    virtual void socketReady(Connection& connection, std::uint32_t events) noexcept = 0;
  };

  Connection(Owner& owner, Poller& poller, Key key, State state, std::uint32_t allocation) noexcept
      : owner_(owner), poller_(poller), key_(key), state_(state), own_(allocation) {}
  ~Connection() override { closeSocket(); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  const Key& key() const noexcept { return key_; }
  State state() const noexcept { return state_; }
  std::uint32_t allocation() const noexcept { return own_.allocation(); }
  std::uint64_t generation = 0;  // tells it from those that had its ports before and will have them
  Clock::time_point deadline;    // while it is in a list of those that have one

  [[gnu::hot]] void ready(std::uint32_t events) noexcept override { owner_.socketReady(*this, events); }

  // Takes the socket, which is connected and does not block.
  void adopt(Fd socket) noexcept;
  // kAsking: the host has answered with a socket.
  void accept(Fd socket) noexcept;
  // kRequested: the guest is to be asked. It has not been while this is so.
  void request() noexcept { wanted_ |= kRequest; }
  bool isUnknownToGuest() const noexcept { return state_ == State::kRequested && (wanted_ & kRequest) != 0; }

  // A packet of the guest for it that is no reset and no request, and makes sense by itself.
  [[gnu::hot]] Next receive(const Header& header, std::span<const iovec> payload) noexcept;
  // What its socket has to tell.
  [[gnu::hot]] Next handleSocket(std::uint32_t events) noexcept;

  // Whether there is something for the guest, as far as it is known.
  bool hasOutput() const noexcept {
    return state_ != State::kLingering && (wanted_ != 0 || shutdownWanted_ != shutdownTold_ || canRead());
  }
  // Fills some of `buffers`, which are not none, with packets for the guest: its turn. How many; 0: there was nothing
  // after all. `frame`: the fields of a header that are the same in all of them.
  struct Filled {
    std::size_t count = 0;
    Next next = Next::kGoOn;
  };
  [[gnu::hot]] Filled fill(std::span<Buffer> buffers, const Header& frame, std::vector<iovec>& scratch) noexcept;

  // Small amounts are read without being taken out of the socket. Taking them out tells the peer that there is room to
  // write, and wakes it for nothing if it waits for an answer: that is done once the answer is there, and after a
  // while.
  bool hasUntaken() const noexcept { return untaken_ > 0; }
  void takeUntaken() noexcept;

  // kLinger is being carried out.
  void linger() noexcept { state_ = State::kLingering; }
  // Everything that was for the guest is told, and the socket is gone.
  bool isClosing() const noexcept { return state_ == State::kClosing; }

  boost::intrusive::list_member_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> outputHook;
  boost::intrusive::list_member_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> deadlineHook;

 private:
  // Packets that wait for a buffer of the guest; one of each is enough.
  enum Wanted : std::uint8_t { kRequest = 1, kResponse = 2, kCreditUpdate = 4, kCreditRequest = 8 };

  bool canRead() const noexcept { return mayRead() && peer_.available() > 0; }
  bool mayRead() const noexcept {
    return state_ == State::kEstablished && readable_ && !hostIsDone_ && (guestShutdown_ & kShutdownReceive) == 0 &&
           (wanted_ & kResponse) == 0;
  }
  [[gnu::hot]] Next receiveData(std::span<const iovec> payload, std::uint32_t bytes) noexcept;
  Next receiveShutdown(std::uint32_t flags) noexcept;
  Next establish() noexcept;
  void beginToMove() noexcept;  // bytes, both ways
  // Whether the client has sent something: what it sent counts though it is gone. Before anything was read.
  bool hasUnread() const noexcept;
  // Writes what waits; then what was to happen once it is written.
  Next flush() noexcept;
  void stopWriting() noexcept;  // the host takes no more
  [[gnu::hot]] void noteForwarded(std::uint32_t bytes) noexcept;
  [[gnu::hot]] void askForCredit() noexcept;
  [[gnu::hot]] Filled read(std::span<Buffer> buffers, const Header& frame, std::vector<iovec>& scratch) noexcept;
  [[gnu::hot]] Filled readAndLeave(Buffer& buffer, const Header& frame) noexcept;
  // Also what has been left before, which is taken out and not told again.
  Filled readAndTake(std::span<Buffer> buffers, const Header& frame, std::vector<iovec>& scratch) noexcept;
  Filled handleNothing(ssize_t got) noexcept;  // the end of what was sent, an error, or nothing yet
  [[gnu::hot]] bool leavesUntaken() const noexcept;
  std::uint32_t noteTaken(std::uint64_t bytes) noexcept;  // of what was taken out; how much of it was read before
  [[gnu::hot]] void put(Buffer& buffer, const Header& frame, Operation operation, std::uint32_t length,
                        std::uint32_t flags) noexcept;
  void closeSocket() noexcept;

  Owner& owner_;
  Poller& poller_;
  Key key_;
  State state_;
  std::uint8_t wanted_ = 0;

  Fd socket_;
  bool mayLeave_ = false;  // the kernel can read on without taking out what was read
  bool lastWasSmall_ = true;
  std::uint32_t untaken_ = 0;  // bytes that were read, and are still in the socket
  unsigned untakenReads_ = 0;
  bool readable_ = false;    // as far as it is known: reading tells
  bool isEnding_ = false;    // the peer has closed one direction at least: an end of file will be read
  bool hostIsDone_ = false;  // the end of file was read
  bool hostIsDeaf_ = false;  // it takes no more
  bool roomIsWatched_ = false;
  bool creditWasRequested_ = false;
  std::uint32_t guestShutdown_ = 0;   // flags that the guest has sent
  std::uint32_t shutdownWanted_ = 0;  // flags that the guest is to know of
  std::uint32_t shutdownTold_ = 0;
  OwnCredit own_;
  PeerCredit peer_;
  ByteQueue pending_;  // from the guest, for a socket that was full
};

}  // namespace vmmhost::kvm::virtio::vsock
