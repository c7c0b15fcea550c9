// Frames from TAPs to a driver's receive queue. On one thread.
//
// After a small frame another small one is expected: it is read into a buffer of our own, the spill, and copied to the
// driver's. Large ones are read straight into as many of these as the largest needs, and the spill behind them: that
// takes time for each buffer, but saves copying 64 KiB. What turns out larger than the buffers is copied from the spill
// to further ones, which it may have to wait for.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "worker-kvm/virtio/device.h"
#include "worker-kvm/virtio/net/shared.h"

namespace vmmhost::kvm::virtio::net {

class Receiver {
 public:
  explicit Receiver(Shared& shared);

  void start(ActiveQueue queue, std::uint64_t features);
  void stop() noexcept;
  bool isStarted() const noexcept { return queue_.has_value(); }
  int notified() const noexcept { return queue_->notified; }

  // At kBlocked the driver notifies of more buffers: then resume().
  Turn receive(int tap) noexcept;
  // kIdle: there are buffers again; a frame that had been begun is finished.
  Turn resume() noexcept;
  // Forgets a frame that was begun.
  void dropBegun() noexcept;

 private:
  // A chain that was fetched, for a frame to come.
  struct Buffer {
    std::uint16_t head = 0;
    std::uint16_t parts = 0;
    std::uint64_t bytes = 0;
  };
  enum class Gathered : std::uint8_t { kSome, kNone, kBroken };
  // How far a frame has come, in buffers from the first one held on.
  struct Placed {
    std::uint64_t bytes = 0;
    std::size_t buffers = 0;
    std::size_t parts = 0;
  };

  bool merges() const noexcept { return (features_ & kMrgRxbuf) != 0; }
  std::uint64_t wantedBytes() const noexcept { return expectsLarge_ ? kMaxFrameBytes : sizeof(Header); }
  bool hasHeld() const noexcept { return firstBuffer_ < buffers_.size(); }
  Queue::Fetched fetchBuffer() noexcept;
  void advance(Placed& placed) const noexcept;
  std::span<const iovec> partsOf(const Placed& buffer) const noexcept;
  Gathered gather() noexcept;
  Gathered finishBegun() noexcept;
  ssize_t read(int tap) noexcept;
  Gathered place(std::size_t frameBytes) noexcept;
  void deliver(std::size_t frameBytes) noexcept;
  void drop() noexcept { count(shared_.counters.receiveDropped); }
  Turn finishTurn(Turn turn) noexcept;

  Shared& shared_;
  std::optional<ActiveQueue> queue_;
  std::uint64_t features_ = 0;
  bool expectsLarge_ = false;  // of the next frame
  Chain chain_;

  // Buffers in the order fetched, and their parts one after the other: what readv gets. Those before `first...` have
  // been used.
  std::vector<Buffer> buffers_;
  std::vector<iovec> parts_;
  std::size_t firstBuffer_ = 0;
  std::size_t firstPart_ = 0;
  std::uint64_t heldBytes_ = 0;

  std::unique_ptr<std::uint8_t[]> spill_;  // kMaxFrameBytes
  Header header_;                          // of the frame that is dealt with
  std::size_t begunBytes_ = 0;             // of a frame that is not all in the driver's buffers; 0: none
  Placed placed_;
  std::uint64_t spillStart_ = 0;  // where in the frame the spill begins

  std::vector<Queue::Used> used_;
};

}  // namespace vmmhost::kvm::virtio::net
