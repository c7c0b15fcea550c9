// What virtio 1.2, 5.3 (console device) lays down.
#pragma once

#include <cstdint>

#include "worker-kvm/virtio/features.h"

namespace vmmhost::kvm::virtio::console {

inline constexpr std::uint16_t kDeviceType = 3;

// 5.3.3.
inline constexpr std::uint64_t kSize = featureBit(0);
inline constexpr std::uint64_t kMultiport = featureBit(1);
inline constexpr std::uint64_t kEmergWrite = featureBit(2);

// 5.3.2: queues of port 0 and, with kMultiport, the control queues and those of further ports.
inline constexpr std::size_t kControlReceiveQueue = 2;
inline constexpr std::size_t kControlTransmitQueue = 3;
constexpr std::size_t receiveQueueOf(std::size_t port) {
  return port == 0 ? 0 : 2 + 2 * port;
}
constexpr std::size_t transmitQueueOf(std::size_t port) {
  return receiveQueueOf(port) + 1;
}

// 5.3.4: struct virtio_console_config.
struct Config {
  std::uint16_t columns = 0;
  std::uint16_t rows = 0;
  std::uint32_t maxPorts = 0;
  std::uint32_t emergencyWrite = 0;
};
static_assert(sizeof(Config) == 12);
inline constexpr std::uint64_t kEmergencyWriteOffset = 8;

// 5.3.6.2: struct virtio_console_control, and its events.
struct ControlMessage {
  std::uint32_t port = 0;
  std::uint16_t event = 0;
  std::uint16_t value = 0;
};
static_assert(sizeof(ControlMessage) == 8);
inline constexpr std::uint16_t kDeviceReady = 0;
inline constexpr std::uint16_t kDeviceAdd = 1;
inline constexpr std::uint16_t kPortReady = 3;
inline constexpr std::uint16_t kConsolePort = 4;
inline constexpr std::uint16_t kResize = 5;
inline constexpr std::uint16_t kPortOpen = 6;
inline constexpr std::uint16_t kPortName = 7;

}  // namespace vmmhost::kvm::virtio::console
