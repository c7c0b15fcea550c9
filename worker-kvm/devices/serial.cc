#include "worker-kvm/devices/serial.h"

#include <algorithm>
#include <utility>

namespace vmmhost::kvm::devices {

namespace {

enum Register : std::uint8_t {
  kData,
  kInterruptEnable,
  kIdentification,
  kLineControl,
  kModemControl,
  kLineStatus,
  kModemStatus,
  kScratch
};

constexpr std::uint8_t kEnableReceived = 0x01;  // IER
constexpr std::uint8_t kEnableTransmitted = 0x02;
constexpr std::uint8_t kEnableMask = 0x0f;
constexpr std::uint8_t kNoInterrupt = 0x01;  // IIR
constexpr std::uint8_t kTransmitterEmpty = 0x02;
constexpr std::uint8_t kReceivedData = 0x04;
constexpr std::uint8_t kReceiverTimeout = 0x0c;
constexpr std::uint8_t kFifosOn = 0xc0;
constexpr std::uint8_t kFifoEnable = 0x01;  // FCR
constexpr std::uint8_t kFifoClearReceiver = 0x02;
constexpr std::uint8_t kDivisorLatch = 0x80;  // LCR
constexpr std::uint8_t kLoopback = 0x10;      // MCR
constexpr std::uint8_t kModemMask = 0x1f;
constexpr std::uint8_t kDataReady = 0x01;  // LSR
constexpr std::uint8_t kOverrun = 0x02;
constexpr std::uint8_t kHoldingEmpty = 0x20;
constexpr std::uint8_t kShiftEmpty = 0x40;
constexpr std::uint8_t kCarrierSendReady = 0xb0;  // MSR: DCD, DSR, CTS

}  // namespace

Serial::Serial(PortBus& bus, std::uint16_t port, Peer& peer, InterruptLine* interrupt)
    : peer_(peer), interrupt_(interrupt), registration_(bus, port, 8, *this, "serial port") {
}

void Serial::read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept {
  bool attention = false;
  {
    const std::lock_guard lock(mutex_);
    // A wider access reaches one register; no bus of a PC splits it for an 8-bit device that does not ask.
    std::fill(data.begin(), data.end(), std::uint8_t{0xff});
    data.front() = readRegister(offset);
    updateInterrupt();
    attention = std::exchange(attention_, false);
  }
  if (attention) {
    peer_.serialNeedsAttention();
  }
}

void Serial::write(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept {
  bool attention = false;
  {
    const std::lock_guard lock(mutex_);
    writeRegister(offset, data.front());
    updateInterrupt();
    attention = std::exchange(attention_, false);
  }
  if (attention) {
    peer_.serialNeedsAttention();
  }
}

void Serial::reset() {
  const std::lock_guard lock(mutex_);
  registers_ = {};
  received_.clear();
  interruptPending_ = false;
}

std::size_t Serial::takeOutput(std::span<std::uint8_t> target) noexcept {
  const std::lock_guard lock(mutex_);
  const bool wasReady = transmitterReady();
  std::size_t taken = 0;
  while (taken < target.size() && !output_.empty()) {
    const auto front = output_.front();
    const std::size_t count = std::min(front.size(), target.size() - taken);
    std::copy_n(front.begin(), count, target.begin() + static_cast<std::ptrdiff_t>(taken));
    output_.drop(count);
    taken += count;
  }
  if (!wasReady && transmitterReady()) {
    registers_.transmitterEmptied = true;
    updateInterrupt();
  }
  return taken;
}

std::size_t Serial::offerInput(std::span<const std::uint8_t> data) noexcept {
  const std::lock_guard lock(mutex_);
  std::size_t taken = 0;
  if ((registers_.modemControl & kLoopback) == 0) {  // the wire is cut during loopback
    while (taken < data.size() && receive(data[taken])) {
      ++taken;
    }
  }
  peerWaitsForRoom_ = taken < data.size();
  updateInterrupt();
  return taken;
}

bool Serial::hasOutput() const noexcept {
  const std::lock_guard lock(mutex_);
  return !output_.empty();
}

void Serial::setModerated(bool isModerated) noexcept {
  const std::lock_guard lock(mutex_);
  isModerated_ = isModerated;
}

std::uint8_t Serial::readRegister(std::uint64_t number) noexcept {
  const bool divisorLatch = (registers_.lineControl & kDivisorLatch) != 0;
  switch (number) {
    case kData: {
      if (divisorLatch) {
        return static_cast<std::uint8_t>(registers_.divisor);
      }
      if (received_.empty()) {
        return 0;
      }
      const std::uint8_t value = received_.pop();
      attention_ = attention_ || (received_.empty() && std::exchange(peerWaitsForRoom_, false));
      return value;
    }
    case kInterruptEnable:
      return divisorLatch ? static_cast<std::uint8_t>(registers_.divisor >> 8) : registers_.interruptEnable;
    case kIdentification: {
      const std::uint8_t identification = interruptIdentification();
      if (identification == kTransmitterEmpty) {
        registers_.transmitterEmptied = false;  // reading it is the acknowledgement
      }
      return static_cast<std::uint8_t>(identification | (registers_.fifos ? kFifosOn : 0));
    }
    case kLineControl:
      return registers_.lineControl;
    case kModemControl:
      return registers_.modemControl;
    case kLineStatus: {
      std::uint8_t status = received_.empty() ? 0 : kDataReady;
      status |= transmitterReady() ? kHoldingEmpty : 0;
      status |= output_.empty() ? kShiftEmpty : 0;
      status |= std::exchange(registers_.overrun, false) ? kOverrun : 0;
      return status;
    }
    case kModemStatus:
      return modemStatus();
    default:
      return registers_.scratch;
  }
}

void Serial::writeRegister(std::uint64_t number, std::uint8_t value) noexcept {
  const bool divisorLatch = (registers_.lineControl & kDivisorLatch) != 0;
  switch (number) {
    case kData:
      if (divisorLatch) {
        registers_.divisor = static_cast<std::uint16_t>((registers_.divisor & 0xff00) | value);
      } else {
        transmit(value);
      }
      break;
    case kInterruptEnable:
      if (divisorLatch) {
        registers_.divisor = static_cast<std::uint16_t>((registers_.divisor & 0x00ff) | (value << 8));
      } else {
        // Enabling the transmitter's interrupt while it is empty raises it.
        if ((value & kEnableTransmitted) != 0 && (registers_.interruptEnable & kEnableTransmitted) == 0 &&
            transmitterReady()) {
          registers_.transmitterEmptied = true;
        }
        registers_.interruptEnable = value & kEnableMask;
      }
      break;
    case kIdentification: {  // FIFO control
      const bool enable = (value & kFifoEnable) != 0;
      if (enable != registers_.fifos || (enable && (value & kFifoClearReceiver) != 0)) {
        received_.clear();
        attention_ = attention_ || std::exchange(peerWaitsForRoom_, false);
      }
      registers_.fifos = enable;
      break;
    }
    case kLineControl:
      registers_.lineControl = value;
      break;
    case kModemControl:
      registers_.modemControl = value & kModemMask;
      // Input that waited for the end of a loopback comes now.
      attention_ = attention_ || ((value & kLoopback) == 0 && std::exchange(peerWaitsForRoom_, false));
      break;
    case kScratch:
      registers_.scratch = value;
      break;
    default:  // the status registers are read-only
      break;
  }
}

void Serial::transmit(std::uint8_t value) noexcept {
  if ((registers_.modemControl & kLoopback) != 0) {
    registers_.overrun = !receive(value) || registers_.overrun;
  } else if (output_.room() > 0) {
    output_.push(value);
    attention_ = attention_ || output_.size() == (isModerated_ ? kOutputBytes / 2 : 1);
  }
  // The byte is on its way at once: the transmitter is empty again, if there is room for more.
  registers_.transmitterEmptied = transmitterReady();
}

bool Serial::receive(std::uint8_t value) noexcept {
  const std::size_t capacity = registers_.fifos ? kFifoBytes : 1;
  if (received_.size() >= capacity) {
    return false;
  }
  received_.push(value);
  return true;
}

bool Serial::transmitterReady() const noexcept {
  return output_.room() >= kFifoBytes;
}

std::uint8_t Serial::interruptIdentification() const noexcept {
  if ((registers_.interruptEnable & kEnableReceived) != 0 && !received_.empty()) {
    // Fewer bytes than a trigger level would come as a timeout a little later; nothing is gained by waiting.
    return registers_.fifos ? kReceiverTimeout : kReceivedData;
  }
  if ((registers_.interruptEnable & kEnableTransmitted) != 0 && registers_.transmitterEmptied) {
    return kTransmitterEmpty;
  }
  return kNoInterrupt;
}

std::uint8_t Serial::modemStatus() const noexcept {
  if ((registers_.modemControl & kLoopback) == 0) {
    return kCarrierSendReady;
  }
  // DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD.
  const std::uint8_t control = registers_.modemControl;
  return static_cast<std::uint8_t>(((control & 0x01) << 5) | ((control & 0x02) << 3) | ((control & 0x0c) << 4));
}

void Serial::updateInterrupt() noexcept {
  const bool pending = interruptIdentification() != kNoInterrupt;
  if (pending && !interruptPending_ && interrupt_ != nullptr) {
    interrupt_->pulse();
  }
  interruptPending_ = pending;
}

}  // namespace vmmhost::kvm::devices
