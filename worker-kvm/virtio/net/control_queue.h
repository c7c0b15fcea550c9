// Serves a driver's control queue (virtio 1.2, 5.1.6.5). On one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "worker-kvm/virtio/device.h"
#include "worker-kvm/virtio/net/control.h"

namespace vmmhost::kvm::virtio::net {

class ControlQueue {
 public:
  // What commands are carried out on.
  class Target {
   public:
    enum class Result : std::uint8_t { kDone, kFailed, kLater };
    virtual ~Target() = default;
    // kLater: carriedOut() is called when it is done, and no further command before.
    virtual Result carryOut(const Command& command) noexcept = 0;
  };

  ControlQueue(Interrupts& interrupts, Target& target, std::uint16_t maxPairs)
      : interrupts_(interrupts), target_(target), maxPairs_(maxPairs) {}

  void start(ActiveQueue queue, std::uint64_t features);
  void stop() noexcept { queue_.reset(); }
  bool isStarted() const noexcept { return queue_.has_value(); }
  int notified() const noexcept { return queue_->notified; }

  enum class Turn : std::uint8_t { kIdle, kMore, kBroken };
  Turn serve() noexcept;
  // What was to be carried out later is done, if anything was.
  Turn carriedOut() noexcept;

 private:
  static constexpr unsigned kCommandsPerTurn = 16;

  Target::Result handle() noexcept;
  void acknowledge(bool isDone) noexcept;

  Interrupts& interrupts_;
  Target& target_;
  const std::uint16_t maxPairs_;
  std::optional<ActiveQueue> queue_;
  std::uint64_t features_ = 0;
  bool isWaiting_ = false;  // for carriedOut(); `chain_` is the command
  Chain chain_;
  std::unique_ptr<std::uint8_t[]> request_;  // kMaxControlBytes, of a driver that has a control queue
};

}  // namespace vmmhost::kvm::virtio::net
