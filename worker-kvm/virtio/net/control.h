// Commands of the control queue (virtio 1.2, 5.1.6.5), taken apart and judged: a pure function.
#pragma once

#include <cstdint>

#include "worker-kvm/memory/guest_memory.h"
#include "worker-kvm/virtio/net/protocol.h"

namespace vmmhost::kvm::virtio::net {

// More bytes than this are no command that is served: room for tables of 1,300 addresses.
inline constexpr std::size_t kMaxControlBytes = 8192;

struct Command {
  enum class Kind : std::uint8_t {
    kRefused,
    kAccepted,     // nothing is to be done
    kSetMac,       // `mac`
    kSetPairs,     // `pairs`, 1 to the most there are
    kSetOffloads,  // `offloads`, a part of those agreed to
  };
  Kind kind = Kind::kRefused;
  MacAddress mac{};
  std::uint16_t pairs = 0;
  std::uint64_t offloads = 0;
};

// `request`: class, command and what belongs to it. `features`: agreed to. What no feature was agreed for is refused.
Command parseCommand(memory::ConstBytes request, std::uint64_t features, std::uint16_t maxPairs) noexcept;

}  // namespace vmmhost::kvm::virtio::net
