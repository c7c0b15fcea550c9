// A queue pair with its thread, and the TAPs that it reads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worker-kvm/io/call_job.h"
#include "worker-kvm/io/call_source.h"
#include "worker-kvm/io/event_thread.h"
#include "worker-kvm/virtio/device_thread.h"
#include "worker-kvm/virtio/net/receiver.h"
#include "worker-kvm/virtio/net/shared.h"
#include "worker-kvm/virtio/net/transmitter.h"

namespace vmmhost::kvm::virtio::net {

// The driver may use fewer pairs than there are TAPs; the system puts frames on all of these. So pair p transmits to
// TAP p, and reads all TAPs t with t mod (active pairs) = p. Functions are called on the pair's thread, if not said
// otherwise.
class Pair {
 public:
  // By the control thread. `rules`: what the thread may do beyond reading and writing TAPs and reporting. `server`:
  // what drivers are handed over to; calls start() and stop().
  Pair(Shared& shared, std::uint16_t index, const std::string& threadName, confine::Rules rules,
       DeviceThread::Server& server);
  Pair(const Pair&) = delete;
  Pair& operator=(const Pair&) = delete;

  DeviceThread& thread() noexcept { return thread_; }  // any thread

  void start(std::optional<ActiveQueue> receive, std::optional<ActiveQueue> transmit, std::uint64_t features) noexcept;
  void stop() noexcept;
  // Looks anew which TAPs are to be read.
  void assignTaps() noexcept;

 private:
  class Tap final : public io::EventThread::Source {
   public:
    Tap(Pair& pair, std::uint16_t index) : pair_(pair), index_(index) {}
    void ready(std::uint32_t events) noexcept override { pair_.tapReady(index_, events); }
    std::uint32_t watched = 0;  // EPOLLIN, EPOLLOUT
    bool gone = false;

   private:
    Pair& pair_;
    std::uint16_t index_;
  };

  void watchTap(std::uint16_t tap, std::uint32_t events) noexcept;
  void watchTaps() noexcept;  // as they are to be now
  void tapReady(std::uint16_t tap, std::uint32_t events) noexcept;
  void tapGone(std::uint16_t tap) noexcept;
  void receiveFrom(std::uint16_t tap) noexcept;
  void buffersOffered() noexcept;
  void framesOffered() noexcept;
  void transmit() noexcept;
  int transmitTap() const noexcept;
  void broken(const char* reason) noexcept;

  Shared& shared_;
  const std::uint16_t index_;
  Receiver receiver_;
  Transmitter transmitter_;
  std::vector<Tap> taps_;
  io::CallSource receiveNotified_;
  io::CallSource transmitNotified_;
  bool lacksBuffers_ = false;
  bool tapIsFull_ = false;
  bool isBroken_ = false;
  io::CallJob transmitMore_;
  DeviceThread thread_;  // ends before what it uses
};

}  // namespace vmmhost::kvm::virtio::net
