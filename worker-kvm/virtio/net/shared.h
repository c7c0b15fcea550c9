// What the threads of one network device share.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "vmmhost/fd.h"
#include "worker-kvm/virtio/device.h"
#include "worker-kvm/virtio/net/counters.h"
#include "worker-kvm/virtio/net/protocol.h"

namespace vmmhost::kvm::virtio::net {

struct Shared {
  std::vector<Fd> taps;              // by queue pair; empty: no link, ever
  Interrupts* interrupts = nullptr;  // from connect() on

  std::atomic<bool> linkWanted = true;  // by the control thread
  std::atomic<bool> tapThere = true;    // false once it was deleted
  bool linkUp() const noexcept {
    return linkWanted.load(std::memory_order_relaxed) && tapThere.load(std::memory_order_relaxed);
  }
  std::atomic<std::uint16_t> activePairs = 1;      // receive queues that frames are put on
  std::atomic<std::uint64_t> receiveFeatures = 0;  // agreed to, and as switched by the driver since
  Counters counters;
};

// What a queue came to in its turn.
enum class Turn : std::uint8_t {
  kIdle,     // nothing more to do for now
  kMore,     // its budget is used up
  kBlocked,  // receiving: the driver has no buffers; transmitting: the TAP is full
  kTapGone,  // the TAP device was deleted
  kBroken,   // the driver broke the rules: the queue is of no use until the device is reset
};

// So that no queue keeps a thread from the others.
inline constexpr unsigned kFramesPerTurn = 64;
inline constexpr std::uint64_t kBytesPerTurn = 1 << 20;

}  // namespace vmmhost::kvm::virtio::net
