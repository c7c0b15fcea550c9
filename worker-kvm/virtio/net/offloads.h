// Which features a TAP device makes possible, what it is to hand over for those that a driver agreed to, and which
// frames these allow. Pure functions.
#pragma once

#include <cstdint>

#include "worker-kvm/virtio/net/protocol.h"

namespace vmmhost::kvm::virtio::net {

// What a TAP device can do with frames larger than its MTU and with checksums that are not there yet.
struct TapSupport {
  bool checksumsAndTso = false;
  bool ufo = false;
  bool uso = false;
};

// The features for such a TAP, and those of the queues.
std::uint64_t offeredFeatures(const TapSupport& support, bool hasMtu, bool hasSeveralPairs) noexcept;

// `features` without those whose requirements are not among them (5.1.3.1).
std::uint64_t withoutUnmet(std::uint64_t features) noexcept;

// The features that a driver may switch off and on again while it runs (5.1.6.5.6.1).
inline constexpr std::uint64_t kGuestOffloads =
    kGuestCsum | kGuestTso4 | kGuestTso6 | kGuestEcn | kGuestUfo | kGuestUso4 | kGuestUso6;

// For TUNSETOFFLOAD: TUN_F_* for the GUEST_* features among `features`.
unsigned tapOffloads(std::uint64_t features) noexcept;

// A frame from the driver, by its header: false if it asks for what was not agreed to. Makes the header what the TAP is
// to see.
bool admitTransmitted(Header& header, std::uint64_t features) noexcept;
// A frame from the TAP: false if the driver could make nothing of it, e.g. one that came before the offloads were set.
// Makes the header, but for numBuffers, what the driver is to see.
bool admitReceived(Header& header, std::uint64_t features) noexcept;

}  // namespace vmmhost::kvm::virtio::net
