// Frames from a driver's transmit queue to a TAP. On one thread.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "worker-kvm/virtio/device.h"
#include "worker-kvm/virtio/net/shared.h"

namespace vmmhost::kvm::virtio::net {

class Transmitter {
 public:
  explicit Transmitter(Shared& shared) : shared_(shared) {}

  void start(ActiveQueue queue, std::uint64_t features);
  void stop() noexcept { queue_.reset(); }
  bool isStarted() const noexcept { return queue_.has_value(); }
  int notified() const noexcept { return queue_->notified; }

  // `tap`: -1 where there is none; frames are discarded then. At kIdle the driver notifies of more.
  Turn transmit(int tap) noexcept;

 private:
  enum class Sent : std::uint8_t { kDone, kFull, kGone };
  Sent send(int tap) noexcept;
  void finishTurn() noexcept;

  Shared& shared_;
  std::optional<ActiveQueue> queue_;
  std::uint64_t features_ = 0;
  Chain chain_;
  std::vector<iovec> parts_;
};

}  // namespace vmmhost::kvm::virtio::net
