#include "worker-kvm/virtio/console/control.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace vmmhost::kvm::virtio::console {

Conversation::Conversation(std::vector<PortNature> ports) {
  for (PortNature& nature : ports) {
    nature.name.resize(std::min(nature.name.size(), kMaxNameBytes));
    ports_.push_back({.nature = std::move(nature)});
  }
}

void Conversation::reset() noexcept {
  for (Port& port : ports_) {
    port.ready = false;
    port.guestOpen = false;
    port.untold = 0;
  }
}

std::optional<Conversation::Opened> Conversation::hear(memory::ConstBytes bytes) noexcept {
  ControlMessage message;
  if (bytes.size() < sizeof message) {
    return std::nullopt;
  }
  std::memcpy(&message, bytes.data(), sizeof message);
  if (message.event == kDeviceReady) {
    if (message.value == 1) {
      for (Port& port : ports_) {
        port.untold |= kAdd;
      }
    }
    return std::nullopt;
  }
  if (message.port >= ports_.size()) {
    return std::nullopt;
  }
  Port& port = ports_[message.port];
  switch (message.event) {
    case kPortReady:
      port.ready = message.value == 1;
      port.untold = 0;
      if (port.ready) {
        tell(port, kConsole | kName | kNewSize | kOpen);
        return std::nullopt;
      }
      return setGuestOpen(message.port, false);  // it could not make use of it
    case kPortOpen:
      return setGuestOpen(message.port, message.value == 1);
    default:
      return std::nullopt;
  }
}

std::optional<Conversation::Opened> Conversation::setGuestOpen(std::size_t port, bool open) noexcept {
  return std::exchange(ports_[port].guestOpen, open) != open ? std::optional(Opened{port, open}) : std::nullopt;
}

void Conversation::tell(Port& port, std::uint8_t matters) noexcept {
  if (!port.nature.isConsole) {
    matters &= static_cast<std::uint8_t>(~(kConsole | kNewSize));
  }
  if (port.nature.name.empty()) {
    matters &= static_cast<std::uint8_t>(~kName);
  }
  if (!port.size) {
    matters &= static_cast<std::uint8_t>(~kNewSize);
  }
  if (port.ready) {
    port.untold |= matters;
  }
}

void Conversation::setSize(std::size_t port, TerminalSize size) noexcept {
  if (ports_[port].size != size) {
    ports_[port].size = size;
    tell(ports_[port], kNewSize);
  }
}

void Conversation::setHostOpen(std::size_t port, bool open) noexcept {
  if (std::exchange(ports_[port].hostOpen, open) != open) {
    tell(ports_[port], kOpen);
  }
}

bool Conversation::hasMore() const noexcept {
  return std::any_of(ports_.begin(), ports_.end(), [](const Port& port) { return port.untold != 0; });
}

std::size_t Conversation::say(memory::Bytes target) noexcept {
  const auto found = std::find_if(ports_.begin(), ports_.end(), [](const Port& port) { return port.untold != 0; });
  if (found == ports_.end()) {
    return 0;
  }
  Port& port = *found;
  ControlMessage message;
  message.port = static_cast<std::uint32_t>(found - ports_.begin());
  message.value = 1;
  std::size_t bytes = sizeof message;
  const std::uint8_t matter = port.untold & static_cast<std::uint8_t>(-port.untold);  // the lowest
  port.untold &= static_cast<std::uint8_t>(~matter);
  const memory::Bytes rest = target.subspan(sizeof message);
  switch (matter) {
    case kAdd:
      message.event = kDeviceAdd;
      break;
    case kConsole:
      message.event = kConsolePort;
      break;
    case kName:
      message.event = kPortName;
      std::copy(port.nature.name.begin(), port.nature.name.end(), rest.begin());
      bytes += port.nature.name.size();
      break;
    case kNewSize: {
      // 5.3.6.2 has the columns first, but what drivers read is the rows: Linux always has, and a correction of 2025
      // was taken back for the sake of the devices that there are.
      const std::uint16_t size[] = {port.size->rows, port.size->columns};
      message.event = kResize;
      std::memcpy(rest.data(), size, sizeof size);
      bytes += sizeof size;
      break;
    }
    default:
      message.event = kPortOpen;
      message.value = port.hostOpen ? 1 : 0;
      break;
  }
  std::memcpy(target.data(), &message, sizeof message);
  return bytes;
}

}  // namespace vmmhost::kvm::virtio::console
