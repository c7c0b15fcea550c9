#include "worker-kvm/devices/io_apic.h"

#include <algorithm>
#include <cstring>

namespace vmmhost::kvm::devices {

namespace {

constexpr std::uint64_t kSelect = 0x00;
constexpr std::uint64_t kWindow = 0x10;

constexpr std::uint8_t kIdRegister = 0;
constexpr std::uint8_t kVersionRegister = 1;
constexpr std::uint8_t kArbitrationRegister = 2;
constexpr std::uint8_t kFirstEntry = 0x10;

constexpr std::uint32_t kVersion = 0x11 | (arch::kIoApicPins - 1) << 16;
constexpr std::uint64_t kMasked = std::uint64_t{1} << 16;
// Delivery status and remote IRR are the controller's.
constexpr std::uint64_t kReadOnly = std::uint64_t{1} << 12 | std::uint64_t{1} << 14;

constexpr std::uint64_t kLocalApicMessages = 0xfee00000;  // Intel SDM, 11.11.1

}  // namespace

IoApic::IoApic(MmioBus& bus) : registration_(bus, arch::kIoApicStart, arch::kIoApicBytes, *this, "I/O APIC") {
  entries_.fill(kMasked);
}

void IoApic::attach(std::uint32_t pin, MessageVector& vector) {
  vectors_.at(pin) = &vector;
}

IoApic::Message IoApic::messageOf(std::uint64_t entry) noexcept {
  const std::uint64_t destination = entry >> 56;
  const std::uint64_t isLogical = entry >> 11 & 1;
  const auto vector = static_cast<std::uint32_t>(entry & 0xff);
  const auto delivery = static_cast<std::uint32_t>(entry >> 8 & 7);
  return {kLocalApicMessages | destination << 12 | isLogical << 2, vector | delivery << 8};
}

void IoApic::read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept {
  std::fill(data.begin(), data.end(), std::uint8_t{0});
  const std::lock_guard lock(mutex_);
  const std::uint32_t value = offset == kSelect ? selected_ : offset == kWindow ? readRegister() : 0;
  std::memcpy(data.data(), &value, std::min(data.size(), sizeof value));
}

void IoApic::write(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept {
  std::uint32_t value = 0;
  std::memcpy(&value, data.data(), std::min(data.size(), sizeof value));
  // Held while a virtual CPU waits for the control thread, which comes here only when none runs.
  const std::lock_guard lock(mutex_);
  if (offset == kSelect) {
    selected_ = static_cast<std::uint8_t>(value);
  } else if (offset == kWindow) {
    writeRegister(value);
  }
}

void IoApic::reset() {
  selected_ = 0;
  id_ = 0;
  for (std::uint32_t pin = 0; pin < entries_.size(); ++pin) {
    entries_[pin] = kMasked;
    apply(pin);
  }
}

std::uint32_t IoApic::readRegister() const noexcept {
  if (selected_ == kIdRegister || selected_ == kArbitrationRegister) {
    return std::uint32_t{id_} << 24;
  }
  if (selected_ == kVersionRegister) {
    return kVersion;
  }
  const std::uint32_t pin = (selected_ - kFirstEntry) / 2U;
  if (selected_ < kFirstEntry || pin >= entries_.size()) {
    return 0;
  }
  return static_cast<std::uint32_t>(entries_[pin] >> (selected_ % 2 != 0 ? 32 : 0));
}

void IoApic::writeRegister(std::uint32_t value) noexcept {
  if (selected_ == kIdRegister) {
    id_ = value >> 24 & 0xf;
    return;
  }
  const std::uint32_t pin = (selected_ - kFirstEntry) / 2U;
  if (selected_ < kFirstEntry || pin >= entries_.size()) {
    return;
  }
  std::uint64_t& entry = entries_[pin];
  const std::uint64_t before = entry;
  if (selected_ % 2 != 0) {
    entry = (entry & 0xffffffff) | std::uint64_t{value} << 32;
  } else {
    entry = (entry & ~std::uint64_t{0xffffffff}) | (value & ~kReadOnly);
  }
  if (entry != before) {
    apply(pin);
  }
}

void IoApic::apply(std::uint32_t pin) noexcept {
  MessageVector* const vector = vectors_[pin];
  if (vector == nullptr) {
    return;
  }
  if ((entries_[pin] & kMasked) != 0) {
    vector->disconnect();
  } else {
    const Message message = messageOf(entries_[pin]);
    vector->connect(message.address, message.data);
  }
}

}  // namespace vmmhost::kvm::devices
