#include "worker-kvm/virtio/net/control.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "worker-kvm/virtio/net/offloads.h"

namespace vmmhost::kvm::virtio::net {

namespace {

constexpr std::uint8_t kMulticast = 1;

template <typename Value>
std::optional<Value> exactly(memory::ConstBytes data) {
  Value value;
  if (data.size() != sizeof value) {
    return std::nullopt;
  }
  std::memcpy(&value, data.data(), sizeof value);
  return value;
}

Command accepted(bool isRight) {
  Command command;
  command.kind = isRight ? Command::Kind::kAccepted : Command::Kind::kRefused;
  return command;
}

// 5.1.6.5.2: entries and their number, for unicast and then for multicast.
bool isMacTable(memory::ConstBytes data) {
  for (int table = 0; table < 2; ++table) {
    if (data.size() < 4) {
      return false;
    }
    std::uint32_t entries = 0;
    std::memcpy(&entries, data.data(), sizeof entries);
    data = data.subspan(4);
    if (entries > data.size() / sizeof(MacAddress)) {
      return false;
    }
    data = data.subspan(entries * sizeof(MacAddress));
  }
  return data.empty();
}

Command setMac(memory::ConstBytes data) {
  Command command;
  const auto mac = exactly<MacAddress>(data);
  if (mac && ((*mac)[0] & kMulticast) == 0 && *mac != MacAddress{}) {
    command.kind = Command::Kind::kSetMac;
    command.mac = *mac;
  }
  return command;
}

}  // namespace

Command parseCommand(memory::ConstBytes request, std::uint64_t features, std::uint16_t maxPairs) noexcept {
  Command command;
  if (request.size() < 2) {
    return command;
  }
  const std::uint8_t classNumber = request[0];
  const std::uint8_t number = request[1];
  const memory::ConstBytes data = request.subspan(2);
  switch (classNumber) {
    case kClassRx:
      // Filters are best effort (5.1.6.5.1): whatever the TAP has is delivered, so that there is nothing to switch.
      return accepted((features & kCtrlRx) != 0 && (number == kRxPromisc || number == kRxAllMulti) &&
                      data.size() == 1 && data[0] <= 1);
    case kClassMac:
      if (number == kMacTableSet) {
        return accepted((features & kCtrlRx) != 0 && isMacTable(data));
      }
      return number == kMacAddrSet && (features & kCtrlMacAddr) != 0 ? setMac(data) : command;
    case kClassMq: {
      const auto pairs = exactly<std::uint16_t>(data);
      if ((features & kMq) != 0 && number == kMqVqPairsSet && pairs && *pairs >= 1 && *pairs <= maxPairs) {
        command.kind = Command::Kind::kSetPairs;
        command.pairs = *pairs;
      }
      return command;
    }
    case kClassGuestOffloads: {
      const auto offloads = exactly<std::uint64_t>(data);
      // 5.1.6.5.6.2: only what was agreed to may be switched on.
      if ((features & kCtrlGuestOffloads) != 0 && number == kGuestOffloadsSet && offloads &&
          (*offloads & ~(features & kGuestOffloads)) == 0) {
        command.kind = Command::Kind::kSetOffloads;
        command.offloads = *offloads;
      }
      return command;
    }
    default:
      return command;
  }
}

}  // namespace vmmhost::kvm::virtio::net
