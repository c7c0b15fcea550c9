// A driver of a network device, on top of the one for all devices. For tests and measurements. Header only.
#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

#include "worker-kvm/virtio/net/protocol.h"
#include "worker-kvm/virtio/test_driver.h"

namespace vmmhost::kvm::virtio::net::test {

struct Received {
  Header header;
  std::vector<std::uint8_t> frame;
  std::vector<std::uint32_t> buffers;  // bytes in each
};

// Buffers of one size for a receive queue.
class ReceiveSide {
 public:
  ReceiveSide(virtio::test::Driver& driver, std::size_t queue, std::uint64_t dataOffset, std::uint32_t bufferBytes)
      : driver_(driver), queue_(queue), data_(dataOffset), bufferBytes_(bufferBytes) {}

  void offer(unsigned count) {
    for (unsigned i = 0; i < count; ++i) {
      const std::uint64_t address = virtio::test::Driver::kData + data_ + next_ * bufferBytes_;
      next_ = (next_ + 1) % kBuffers;
      at_[driver_.queue(queue_).offer({{address, bufferBytes_, true}})] = address;
    }
    driver_.queue(queue_).notifyIfWanted();
  }
  bool hasUsed() { return driver_.queue(queue_).hasUsed(); }

  // Waits for the next frame.
  Received take() {
    Received received;
    std::uint16_t parts = 1;
    for (std::uint16_t part = 0; part < parts; ++part) {
      EXPECT_TRUE(part == 0 || hasUsed()) << "the parts of a frame are used together";
      const auto used = driver_.queue(queue_).nextUsed(driver_.interrupts());
      const std::uint64_t address = at_.at(static_cast<std::uint16_t>(used.head));
      const auto bytes = driver_.memory().require(address, used.bytes, "test");
      std::size_t skip = 0;
      if (bytes.size() < sizeof received.header && part == 0) {
        ADD_FAILURE() << "a frame has a header";
        return received;
      }
      if (part == 0) {
        std::memcpy(&received.header, bytes.data(), sizeof received.header);
        parts = received.header.numBuffers;
        skip = sizeof received.header;
      }
      received.frame.insert(received.frame.end(), bytes.begin() + static_cast<std::ptrdiff_t>(skip), bytes.end());
      received.buffers.push_back(used.bytes);
    }
    return received;
  }

 private:
  static constexpr std::uint64_t kBuffers = 256;
  virtio::test::Driver& driver_;
  std::size_t queue_;
  std::uint64_t data_;
  std::uint32_t bufferBytes_;
  std::uint64_t next_ = 0;
  std::map<std::uint16_t, std::uint64_t> at_;
};

// Sends frames on a transmit queue, each from its own place.
class TransmitSide {
 public:
  TransmitSide(virtio::test::Driver& driver, std::size_t queue, std::uint64_t dataOffset)
      : driver_(driver), queue_(queue), data_(dataOffset) {}

  // `pieces`: how many parts the frame is cut into, behind the header.
  void offer(const Header& header, const std::vector<std::uint8_t>& frame, std::size_t pieces = 1) {
    const std::uint64_t address = data_ + (next_++ % kSlots) * kSlotBytes;
    auto slot = driver_.data(address, kSlotBytes);
    std::memcpy(slot.data(), &header, sizeof header);
    std::copy(frame.begin(), frame.end(), slot.begin() + sizeof header);
    const std::uint64_t base = virtio::test::Driver::kData + address;
    std::vector<virtio::test::Part> parts{{base, sizeof header, false}};
    for (std::size_t piece = 0; piece < pieces; ++piece) {
      const std::size_t from = frame.size() * piece / pieces;
      const std::size_t to = frame.size() * (piece + 1) / pieces;
      parts.push_back({base + sizeof header + from, static_cast<std::uint32_t>(to - from), false});
    }
    driver_.queue(queue_).offer(parts);
  }
  void send(const Header& header, const std::vector<std::uint8_t>& frame, std::size_t pieces = 1) {
    offer(header, frame, pieces);
    driver_.queue(queue_).notifyIfWanted();
  }
  void awaitUsed() { driver_.queue(queue_).nextUsed(driver_.interrupts()); }

 private:
  static constexpr std::uint64_t kSlots = 16;
  static constexpr std::uint64_t kSlotBytes = 128 * 1024;
  virtio::test::Driver& driver_;
  std::size_t queue_;
  std::uint64_t data_;
  std::uint64_t next_ = 0;
};

// One command on the control queue; its ack.
inline std::uint8_t command(virtio::test::Driver& driver, std::size_t queue, const std::vector<std::uint8_t>& request) {
  constexpr std::uint64_t kPlace = 40 << 20;
  std::memcpy(driver.data(kPlace, request.size()).data(), request.data(), request.size());
  driver.data(kPlace + 65536, 1)[0] = 0xee;
  const std::uint64_t base = virtio::test::Driver::kData + kPlace;
  driver.queue(queue).offer({{base, static_cast<std::uint32_t>(request.size()), false}, {base + 65536, 1, true}});
  driver.queue(queue).notifyIfWanted();
  const auto used = driver.queue(queue).nextUsed(driver.interrupts());
  EXPECT_EQ(used.bytes, 1u);
  return driver.data(kPlace + 65536, 1)[0];
}

}  // namespace vmmhost::kvm::virtio::net::test
