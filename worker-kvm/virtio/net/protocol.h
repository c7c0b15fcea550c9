// What virtio 1.2, 5.1 (network device) lays down: features, configuration, the header of each frame.
#pragma once

#include <array>
#include <cstdint>

#include "worker-kvm/virtio/features.h"

namespace vmmhost::kvm::virtio::net {

inline constexpr std::uint16_t kDeviceType = 1;

// 5.1.3.
inline constexpr std::uint64_t kCsum = featureBit(0);
inline constexpr std::uint64_t kGuestCsum = featureBit(1);
inline constexpr std::uint64_t kCtrlGuestOffloads = featureBit(2);
inline constexpr std::uint64_t kMtu = featureBit(3);
inline constexpr std::uint64_t kMac = featureBit(5);
inline constexpr std::uint64_t kGuestTso4 = featureBit(7);
inline constexpr std::uint64_t kGuestTso6 = featureBit(8);
inline constexpr std::uint64_t kGuestEcn = featureBit(9);
inline constexpr std::uint64_t kGuestUfo = featureBit(10);
inline constexpr std::uint64_t kHostTso4 = featureBit(11);
inline constexpr std::uint64_t kHostTso6 = featureBit(12);
inline constexpr std::uint64_t kHostEcn = featureBit(13);
inline constexpr std::uint64_t kHostUfo = featureBit(14);
inline constexpr std::uint64_t kMrgRxbuf = featureBit(15);
inline constexpr std::uint64_t kStatus = featureBit(16);
inline constexpr std::uint64_t kCtrlVq = featureBit(17);
inline constexpr std::uint64_t kCtrlRx = featureBit(18);
inline constexpr std::uint64_t kMq = featureBit(22);
inline constexpr std::uint64_t kCtrlMacAddr = featureBit(23);
inline constexpr std::uint64_t kGuestUso4 = featureBit(54);
inline constexpr std::uint64_t kGuestUso6 = featureBit(55);
inline constexpr std::uint64_t kHostUso = featureBit(56);

using MacAddress = std::array<std::uint8_t, 6>;

// 5.1.6: struct virtio_net_hdr, before each frame in both directions.
struct Header {
  std::uint8_t flags = 0;
  std::uint8_t gsoType = 0;
  std::uint16_t hdrLen = 0;
  std::uint16_t gsoSize = 0;
  std::uint16_t csumStart = 0;
  std::uint16_t csumOffset = 0;
  std::uint16_t numBuffers = 0;
};
static_assert(sizeof(Header) == 12);

inline constexpr std::uint8_t kNeedsCsum = 1;
inline constexpr std::uint8_t kDataValid = 2;
inline constexpr std::uint8_t kGsoNone = 0;
inline constexpr std::uint8_t kGsoTcp4 = 1;
inline constexpr std::uint8_t kGsoUdp = 3;
inline constexpr std::uint8_t kGsoTcp6 = 4;
inline constexpr std::uint8_t kGsoUdpL4 = 5;
inline constexpr std::uint8_t kGsoEcn = 0x80;

// A header, an Ethernet header with a VLAN tag, and the largest IP packet.
inline constexpr std::uint32_t kMaxFrameBytes = sizeof(Header) + 18 + 65536;

// 5.1.4: struct virtio_net_config, as far as it is offered.
struct Config {
  MacAddress mac{};
  std::uint16_t status = 0;
  std::uint16_t maxVirtqueuePairs = 0;
  std::uint16_t mtu = 0;
};
static_assert(sizeof(Config) == 12);
inline constexpr std::uint16_t kStatusLinkUp = 1;

// 5.1.6.5: the control queue.
inline constexpr std::uint8_t kControlOk = 0;
inline constexpr std::uint8_t kControlError = 1;
inline constexpr std::uint8_t kClassRx = 0;
inline constexpr std::uint8_t kRxPromisc = 0;
inline constexpr std::uint8_t kRxAllMulti = 1;
inline constexpr std::uint8_t kClassMac = 1;
inline constexpr std::uint8_t kMacTableSet = 0;
inline constexpr std::uint8_t kMacAddrSet = 1;
inline constexpr std::uint8_t kClassMq = 4;
inline constexpr std::uint8_t kMqVqPairsSet = 0;
inline constexpr std::uint8_t kClassGuestOffloads = 5;
inline constexpr std::uint8_t kGuestOffloadsSet = 0;

}  // namespace vmmhost::kvm::virtio::net
