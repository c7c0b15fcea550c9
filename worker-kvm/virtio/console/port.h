// One port of a console device: bytes between a stream socket and a pair of queues. On the device's thread.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "vmmhost/fd.h"
#include "worker-kvm/io/call_source.h"
#include "worker-kvm/io/event_thread.h"
#include "worker-kvm/virtio/device.h"

namespace vmmhost::kvm::virtio::console {

// What a port tells its device.
class PortEvents {
 public:
  virtual ~PortEvents() = default;
  virtual void hostClosed(std::size_t port) noexcept = 0;
  virtual void portBroken() noexcept = 0;  // its driver broke the rules
  virtual void wantsTurn() noexcept = 0;   // takeTurn() is to be called later
  virtual void used(std::uint16_t queue) noexcept = 0;
};

class Port {
 public:
  Port(io::EventThread& thread, std::size_t index, Fd socket, PortEvents& events);
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;

  // `listens`: the guest takes input. Output is always taken.
  void start(std::optional<ActiveQueue> receive, std::optional<ActiveQueue> transmit, bool listens) noexcept;
  void stop() noexcept;  // but for emergencies
  void abandon() noexcept;
  void setListens(bool listens) noexcept;
  // Output that comes by no queue; what there is no room for is lost. From this thread.
  void putEmergency(std::uint8_t byte) noexcept;
  void takeTurn() noexcept;

 private:
  static constexpr std::size_t kEmergencyBytes = 256;

  void socketReady(std::uint32_t events) noexcept;
  void watchSocket() noexcept;
  void receive() noexcept;
  void transmit() noexcept;
  bool sendOutput(std::uint64_t& bytes) noexcept;
  bool flushEmergency() noexcept;  // false: the socket is full
  void closed() noexcept;
  void broken() noexcept;

  io::EventThread& thread_;
  const std::size_t index_;
  Fd socket_;
  PortEvents& events_;
  io::CallSource socketSource_;
  io::CallSource receiveNotified_;
  io::CallSource transmitNotified_;
  std::uint32_t watched_ = 0;
  bool hostOpen_ = true;
  bool isBroken_ = false;

  std::optional<ActiveQueue> receive_;
  bool listens_ = false;
  bool lacksBuffers_ = false;
  Chain input_;

  std::optional<ActiveQueue> transmit_;
  bool isFull_ = false;     // the socket
  bool hasOutput_ = false;  // `output_` is not all sent
  std::uint64_t sent_ = 0;  // of it
  bool wantsTurn_ = false;
  Chain output_;
  std::vector<iovec> parts_;
  std::array<std::uint8_t, kEmergencyBytes> emergency_{};
  std::size_t emergencyBytes_ = 0;
};

}  // namespace vmmhost::kvm::virtio::console
