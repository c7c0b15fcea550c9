// A 16550A serial port: a register model between a guest and a stream of bytes.
// Source: National Semiconductor PC16550D data sheet (register numbers in comments are its table II).
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <span>

#include "worker-kvm/devices/bus.h"

namespace vmmhost::kvm::devices {

// An interrupt line that is raised by edges.
class InterruptLine {
 public:
  virtual ~InterruptLine() = default;
  virtual void pulse() noexcept = 0;
};

// A ring of bytes of a fixed size. Not thread-safe.
template <std::size_t Capacity>
class ByteRing {
 public:
  std::size_t size() const noexcept { return size_; }
  std::size_t room() const noexcept { return Capacity - size_; }
  bool empty() const noexcept { return size_ == 0; }
  void clear() noexcept { size_ = 0; }
  void push(std::uint8_t value) noexcept {  // needs room
    bytes_[(first_ + size_) % Capacity] = value;
    ++size_;
  }
  std::uint8_t pop() noexcept {  // needs a byte
    const std::uint8_t value = bytes_[first_];
    first_ = (first_ + 1) % Capacity;
    --size_;
    return value;
  }
  // The bytes that lie together at the front: at most all of them.
  std::span<const std::uint8_t> front() const noexcept {
    return {bytes_.data() + first_, first_ + size_ <= Capacity ? size_ : Capacity - first_};
  }
  void drop(std::size_t count) noexcept {
    first_ = (first_ + count) % Capacity;
    size_ -= count;
  }

 private:
  std::array<std::uint8_t, Capacity> bytes_{};
  std::size_t first_ = 0;
  std::size_t size_ = 0;
};

class Serial final : public BusDevice {
 public:
  static constexpr std::size_t kFifoBytes = 16;
  static constexpr std::size_t kOutputBytes = 4096;

  // Told from a guest's thread, with no lock held, that there is something to do for the other side: output where there
  // was none (see setModerated), or an empty receiver after offerInput could not place everything.
  class Peer {
   public:
    virtual ~Peer() = default;
    virtual void serialNeedsAttention() noexcept = 0;
  };

  // `interrupt` may be null: the port is polled then.
  Serial(PortBus& bus, std::uint16_t port, Peer& peer, InterruptLine* interrupt);

  // The guest's side. The transmitter is called empty while there is room for a full FIFO, so that a guest which looks
  // loses nothing however slowly the other side reads; a guest that does not look loses bytes as it would on a wire.
  void read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override;
  void write(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept override;
  void reset() override;  // output that was not taken stays

  // The other side, from one thread. takeOutput copies at most target.size() bytes and forgets them; offerInput says
  // how many bytes the receiver took.
  std::size_t takeOutput(std::span<std::uint8_t> target) noexcept;
  std::size_t offerInput(std::span<const std::uint8_t> data) noexcept;
  bool hasOutput() const noexcept;
  // Says that the other side comes for output by itself for a while: then it is called only once half of the room is
  // taken. False brings back what is usual; there may be output already.
  void setModerated(bool isModerated) noexcept;

 private:
  struct Registers {
    std::uint8_t interruptEnable = 0;
    std::uint8_t lineControl = 0;
    std::uint8_t modemControl = 0;
    std::uint8_t scratch = 0;
    std::uint16_t divisor = 12;  // 9600 baud
    bool fifos = false;
    bool transmitterEmptied = false;  // its interrupt is pending
    bool overrun = false;
  };

  std::uint8_t readRegister(std::uint64_t number) noexcept;
  void writeRegister(std::uint64_t number, std::uint8_t value) noexcept;
  void transmit(std::uint8_t value) noexcept;
  bool receive(std::uint8_t value) noexcept;
  bool transmitterReady() const noexcept;
  std::uint8_t interruptIdentification() const noexcept;
  std::uint8_t modemStatus() const noexcept;
  void updateInterrupt() noexcept;

  Peer& peer_;
  InterruptLine* interrupt_;
  mutable std::mutex mutex_;
  Registers registers_;
  ByteRing<kFifoBytes> received_;
  ByteRing<kOutputBytes> output_;
  bool peerWaitsForRoom_ = false;
  bool isModerated_ = false;
  bool attention_ = false;  // set under the lock, told after it
  bool interruptPending_ = false;
  Bus::Registration registration_;
};

}  // namespace vmmhost::kvm::devices
