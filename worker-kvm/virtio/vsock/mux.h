// All connections of a device: takes packets of the guest, moves bytes from and to sockets, and fills buffers of the
// guest. On one thread; knows neither queues nor how that thread waits.
// Source: virtio 1.2, 5.10.6.
#pragma once

#include <boost/intrusive/list.hpp>
#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "vmmhost/fd.h"
#include "worker-kvm/virtio/vsock/connection.h"

namespace vmmhost::kvm::virtio::vsock {

// Stands for a connection of the guest while the host is asked for its other end.
struct Ticket {
  Key key;
  std::uint64_t generation = 0;
};

struct Limits {
  std::size_t maxConnections = 4096;
  std::size_t maxAsking = 256;   // of the guest, while the host is being asked
  std::size_t maxResets = 1024;  // that wait for a buffer of the guest: then no packet of it is taken any more
  // What the guest may send on a connection before the socket has taken it: memory, in the worst case. The first ones
  // get most of it; what is left always suffices for the smallest share of all that may come.
  std::uint32_t largestShare = 256 * 1024;  // powers of 2
  std::uint32_t smallestShare = 4 * 1024;
  std::uint64_t allShares = 32 * 1024 * 1024;
  std::chrono::milliseconds connectTimeout{5000};  // for either side to answer
  std::chrono::milliseconds closeTimeout{8000};    // for the guest to have done with a connection that has ended
  std::chrono::milliseconds takeTimeout{50};       // after which what was read is taken out of a socket at the latest
};

class Mux final : public Connection::Owner {
 public:
  // The thread around it. Outlives it.
  class Surroundings : public Poller {
   public:
    // Call expire() at this time, or the last one that was asked for.
    virtual void arm(Clock::time_point time) noexcept = 0;
    // The guest wants to connect to `port` of the host: hostAnswered() with the ticket tells. False: not now.
    virtual bool askHost(const Ticket& ticket, std::uint32_t port) noexcept = 0;
    // A socket has changed something: there may be output.
    virtual void socketsChanged() noexcept = 0;
  };

  Mux(Surroundings& surroundings, std::uint64_t guestCid, const Limits& limits) noexcept
      : surroundings_(surroundings), guestCid_(guestCid), limits_(limits) {}
  ~Mux() override = default;
  Mux(const Mux&) = delete;
  Mux& operator=(const Mux&) = delete;

  // A packet of the guest with what came behind the header. Not while isStopped().
  [[gnu::hot]] void receive(const Header& header, std::span<const iovec> behind, std::uint64_t behindBytes) noexcept;
  // Too many answers wait for buffers of the guest (5.10.6.1).
  bool isStopped() const noexcept { return resets_.size() >= limits_.maxResets; }

  // A client of the host for `port` of the guest. Its socket is connected and does not block; it is closed if the guest
  // does not want it.
  void connectToGuest(Fd socket, std::uint32_t port) noexcept;
  // What the host says to a ticket: a connected socket that does not block, or none.
  void hostAnswered(const Ticket& ticket, Fd socket) noexcept;

  // Something waits for buffers of the guest.
  bool hasOutput() const noexcept { return !resets_.empty() || !output_.empty(); }
  // One turn of one connection: fills some of `buffers`, at least one of which is there. How many.
  [[gnu::hot]] std::size_t fill(std::span<Buffer> buffers) noexcept;

  void expire(Clock::time_point now) noexcept;
  // Forgets everything; the guest is told nothing.
  void clear() noexcept;

  std::size_t connections() const noexcept { return connections_.size() + lingering_.size(); }

 private:
  struct Reset {
    Key key;
    std::uint16_t type = kTypeStream;
  };
  template <auto Hook>
  using ListBy = boost::intrusive::list<
      Connection,
      boost::intrusive::member_hook<
          Connection, boost::intrusive::list_member_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>>,
          Hook>,
      boost::intrusive::constant_time_size<false>>;
  using DeadlineList = ListBy<&Connection::deadlineHook>;

  [[gnu::hot]] void socketReady(Connection& connection, std::uint32_t events) noexcept override;
  [[gnu::hot]] Connection* find(const Key& key) noexcept;
  Connection* add(const Key& key, Connection::State state) noexcept;  // null: there is no room for more
  void handleRequest(const Header& header) noexcept;
  [[gnu::hot]] void carryOut(Connection& connection, Connection::Next next) noexcept;
  [[gnu::hot]] void schedule(Connection& connection) noexcept;
  void remove(Connection& connection) noexcept;
  void limitTime(Connection& connection, DeadlineList& list, std::chrono::milliseconds time) noexcept;
  void arm(Clock::time_point time) noexcept;
  std::size_t fillReset(Buffer& buffer) noexcept;
  std::uint32_t grantShare() noexcept;
  std::optional<std::uint32_t> freeHostPort(std::uint32_t guestPort) noexcept;
  Header frame() const noexcept;

  Surroundings& surroundings_;
  std::uint64_t guestCid_;
  Limits limits_;
  std::deque<Reset> resets_;
  // A tree: a guest that chooses its ports cannot make looking for one slow.
  std::map<Key, std::unique_ptr<Connection>> connections_;
  Connection* lastFound_ = nullptr;  // of these, or null
  std::map<const Connection*, std::unique_ptr<Connection>> lingering_;
  ListBy<&Connection::outputHook> output_;  // in turn
  DeadlineList connecting_;                 // the earliest first
  DeadlineList closing_;
  DeadlineList untaken_;
  std::size_t asking_ = 0;
  std::uint64_t granted_ = 0;
  std::uint64_t generation_ = 0;
  std::uint32_t nextHostPort_ = 0;
  bool resetsWereServed_ = false;
  std::optional<Clock::time_point> armed_;
  std::vector<iovec> scratch_;
};

}  // namespace vmmhost::kvm::virtio::vsock
