// The conversation on the control queues (virtio 1.2, 5.3.6.2), apart from the queues: what the driver said, and what
// it is still to be told. What is to be told is a mark per port and matter, so that a driver that asks and never
// listens costs nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "worker-kvm/memory/guest_memory.h"
#include "worker-kvm/virtio/console/protocol.h"

namespace vmmhost::kvm::virtio::console {

struct TerminalSize {
  std::uint16_t columns = 0;
  std::uint16_t rows = 0;
  bool operator==(const TerminalSize&) const = default;
};

class Conversation {
 public:
  static constexpr std::size_t kMaxNameBytes = 64;
  static constexpr std::size_t kMaxMessageBytes = sizeof(ControlMessage) + kMaxNameBytes;

  struct PortNature {
    std::string name;  // empty: none
    bool isConsole = false;
  };
  explicit Conversation(std::vector<PortNature> ports);

  // The driver has gone, or come anew.
  void reset() noexcept;

  // A message of the driver. Says which port the guest has opened or closed by it, if it has.
  struct Opened {
    std::size_t port = 0;
    bool open = false;
  };
  std::optional<Opened> hear(memory::ConstBytes message) noexcept;

  void setSize(std::size_t port, TerminalSize size) noexcept;
  void setHostOpen(std::size_t port, bool open) noexcept;

  bool hasMore() const noexcept;
  // The next message for the driver into `target`, which has room for kMaxMessageBytes; its bytes, 0 if there is none.
  std::size_t say(memory::Bytes target) noexcept;

 private:
  // In the order in which they are told.
  enum Matter : std::uint8_t { kAdd = 1, kConsole = 2, kName = 4, kNewSize = 8, kOpen = 16 };
  struct Port {
    PortNature nature;
    std::optional<TerminalSize> size;
    bool hostOpen = true;
    bool ready = false;  // the driver has it
    bool guestOpen = false;
    std::uint8_t untold = 0;  // Matter
  };
  std::optional<Opened> setGuestOpen(std::size_t port, bool open) noexcept;
  void tell(Port& port, std::uint8_t matters) noexcept;

  std::vector<Port> ports_;
};

}  // namespace vmmhost::kvm::virtio::console
