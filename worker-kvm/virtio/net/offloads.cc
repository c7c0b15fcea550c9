#include "worker-kvm/virtio/net/offloads.h"

#include <linux/if_tun.h>

#include "worker-kvm/virtio/features.h"

namespace vmmhost::kvm::virtio::net {

namespace {

// Linux 6.2; they go together.
constexpr unsigned kTunUso4 = 0x20;
constexpr unsigned kTunUso6 = 0x40;

constexpr std::uint64_t kGuestSegments = kGuestTso4 | kGuestTso6 | kGuestEcn | kGuestUfo | kGuestUso4 | kGuestUso6;
constexpr std::uint64_t kHostSegments = kHostTso4 | kHostTso6 | kHostEcn | kHostUfo | kHostUso;
constexpr std::uint64_t kNeedControl = kCtrlRx | kMq | kCtrlMacAddr | kCtrlGuestOffloads;

// True if frames of this type may pass; `tcp4` and so on are the features for the direction.
bool isAgreed(std::uint8_t gsoType, std::uint64_t features, std::uint64_t tcp4, std::uint64_t tcp6, std::uint64_t ecn,
              std::uint64_t udp, std::uint64_t udpL4) {
  const bool hasEcn = (gsoType & kGsoEcn) != 0;
  switch (gsoType & ~kGsoEcn) {
    case kGsoNone:
      return !hasEcn;
    case kGsoTcp4:
      return (features & tcp4) != 0 && (!hasEcn || (features & ecn) != 0);
    case kGsoTcp6:
      return (features & tcp6) != 0 && (!hasEcn || (features & ecn) != 0);
    case kGsoUdp:
      return (features & udp) != 0 && !hasEcn;
    case kGsoUdpL4:
      return (features & udpL4) != 0 && !hasEcn;
    default:
      return false;
  }
}

}  // namespace

std::uint64_t offeredFeatures(const TapSupport& support, bool hasMtu, bool hasSeveralPairs) noexcept {
  std::uint64_t features = kMac | kStatus | kMrgRxbuf | kCtrlVq | kCtrlRx | kCtrlMacAddr | kIndirectDesc | kEventIdx;
  if (support.checksumsAndTso) {
    features |= kCsum | kGuestCsum | kHostTso4 | kHostTso6 | kHostEcn | kGuestTso4 | kGuestTso6 | kGuestEcn |
                kCtrlGuestOffloads;
    if (support.ufo) {
      features |= kHostUfo | kGuestUfo;
    }
    if (support.uso) {
      features |= kHostUso | kGuestUso4 | kGuestUso6;
    }
  }
  if (hasMtu) {
    features |= kMtu;
  }
  if (hasSeveralPairs) {
    features |= kMq;
  }
  return features;
}

std::uint64_t withoutUnmet(std::uint64_t features) noexcept {
  if ((features & kGuestCsum) == 0) {
    features &= ~kGuestSegments;
  }
  if ((features & kCsum) == 0) {
    features &= ~kHostSegments;
  }
  if ((features & (kGuestTso4 | kGuestTso6)) == 0) {
    features &= ~kGuestEcn;
  }
  if ((features & (kHostTso4 | kHostTso6)) == 0) {
    features &= ~kHostEcn;
  }
  if ((features & kCtrlVq) == 0) {
    features &= ~kNeedControl;
  }
  return features;
}

unsigned tapOffloads(std::uint64_t features) noexcept {
  features = withoutUnmet(features);
  unsigned offloads = 0;
  const auto add = [&](std::uint64_t feature, unsigned offload) {
    if ((features & feature) == feature) {
      offloads |= offload;
    }
  };
  add(kGuestCsum, TUN_F_CSUM);
  add(kGuestTso4, TUN_F_TSO4);
  add(kGuestTso6, TUN_F_TSO6);
  add(kGuestEcn, TUN_F_TSO_ECN);
  add(kGuestUfo, TUN_F_UFO);
  add(kGuestUso4 | kGuestUso6, kTunUso4 | kTunUso6);
  return offloads;
}

bool admitTransmitted(Header& header, std::uint64_t features) noexcept {
  // 5.1.6.2.2: flags that are not known are ignored; DATA_VALID is none of a driver's.
  header.flags &= kNeedsCsum;
  header.numBuffers = 0;
  // What has no meaning has no effect either: the TAP would look at it.
  if ((header.flags & kNeedsCsum) == 0) {
    header.csumStart = header.csumOffset = 0;
  }
  if (header.gsoType == kGsoNone) {
    header.hdrLen = header.gsoSize = 0;
  }
  if ((header.flags & kNeedsCsum) != 0 && (features & kCsum) == 0) {
    return false;
  }
  // 5.1.6.2.1: a frame that is to be cut has a checksum that is to be made.
  if (header.gsoType != kGsoNone && (header.flags & kNeedsCsum) == 0) {
    return false;
  }
  return isAgreed(header.gsoType, features, kHostTso4, kHostTso6, kHostEcn, kHostUfo, kHostUso);
}

bool admitReceived(Header& header, std::uint64_t features) noexcept {
  if ((features & kGuestCsum) == 0) {
    if ((header.flags & kNeedsCsum) != 0) {
      return false;
    }
    header.flags = 0;  // 5.1.6.4.1
  }
  header.flags &= kNeedsCsum | kDataValid;
  return isAgreed(header.gsoType, features, kGuestTso4, kGuestTso6, kGuestEcn, kGuestUfo, kGuestUso4 | kGuestUso6);
}

}  // namespace vmmhost::kvm::virtio::net
