// virtio-net over a TAP device (virtio 1.2, 5.1).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vmmhost/fd.h"
#include "worker-kvm/io/call_job.h"
#include "worker-kvm/io/call_source.h"
#include "worker-kvm/threads/wake.h"
#include "worker-kvm/virtio/device.h"
#include "worker-kvm/virtio/net/control_queue.h"
#include "worker-kvm/virtio/net/offloads.h"
#include "worker-kvm/virtio/net/pair.h"
#include "worker-kvm/virtio/net/shared.h"

namespace vmmhost::kvm::virtio::net {

struct NetOptions {
  std::string name = "net0";  // at most 12 bytes: threads are called name.pair where there are several
  MacAddress mac{};
  std::uint16_t mtu = 0;  // 0: the driver is not told of one
  bool linkUp = true;
};

// One thread per queue pair. A thread may read all TAPs, write to its own, write to the interrupts' descriptors, and
// the first one sets offloads (TUNSETOFFLOAD): nothing else of a TAP is theirs.
class Net final : public Device, private ControlQueue::Target {
 public:
  static constexpr std::size_t kMaxPairs = 8;
  static constexpr std::uint16_t kQueueSize = 256;

  // `taps`: the queues of one TAP device, one for each queue pair, at most kMaxPairs: IFF_TAP, IFF_NO_PI, IFF_VNET_HDR
  // with a header of 12 bytes, non-blocking. None: there is no link, and what the driver sends is discarded. Throws
  // Error.
  Net(NetOptions options, std::vector<Fd> taps);
  ~Net() override;
  Net(const Net&) = delete;
  Net& operator=(const Net&) = delete;

  std::uint16_t type() const noexcept override { return kDeviceType; }
  const char* name() const noexcept override { return options_.name.c_str(); }
  std::uint64_t features() const noexcept override { return offered_; }
  std::span<const std::uint16_t> queueSizes() const noexcept override { return queueSizes_; }
  void readConfig(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override;
  void connect(Interrupts& interrupts) override;
  void activate(Activation activation) noexcept override;
  void deactivate(std::function<void()> done) noexcept override;

  // By the control thread: the cable. A TAP that was deleted has none whatever is said here.
  void setLink(bool up) noexcept;
  // Any thread.
  const Counters& counters() const noexcept { return shared_.counters; }
  // The eventfds that activate and deactivate write to, for filters of the threads that call them. Once connected.
  std::vector<int> wakeDescriptors() const;

 private:
  // A pair with what is posted to it.
  struct Served;
  confine::Rules rulesFor(std::size_t pair) const;
  // On the pairs' threads.
  void startPair(std::uint16_t pair, Activation activation) noexcept;
  void stopPair(std::uint16_t pair) noexcept;
  void assign(std::uint16_t pair) noexcept;
  // On the first pair's thread.
  void forgetDriver() noexcept;
  void serveControl() noexcept;
  void pairsSwitched() noexcept;
  void finishControl(ControlQueue::Turn turn) noexcept;
  void setOffloads(std::uint64_t features) noexcept;
  Result carryOut(const Command& command) noexcept override;

  const NetOptions options_;
  Shared shared_;
  std::uint64_t offered_ = 0;
  std::vector<std::uint16_t> queueSizes_;
  std::atomic<std::uint64_t> mac_ = 0;       // as the driver may change it
  std::atomic<std::uint32_t> switches_ = 0;  // of activePairs, so far
  const threads::Wake switched_;             // to the first pair's thread: a pair has taken note of one
  io::CallSource switchedSource_;
  io::CallSource controlNotified_;
  std::unique_ptr<ControlQueue> control_;
  std::vector<std::unique_ptr<Served>> pairs_;
};

}  // namespace vmmhost::kvm::virtio::net
