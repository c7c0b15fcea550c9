#include "worker-kvm/pci/function.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "vmmhost/error.h"

namespace vmmhost::kvm::pci {

namespace {

// Registers of a type 0 header (6.1).
constexpr std::size_t kVendor = 0x00;
constexpr std::size_t kDevice = 0x02;
constexpr std::size_t kCommand = 0x04;
constexpr std::size_t kStatus = 0x06;
constexpr std::size_t kRevision = 0x08;
constexpr std::size_t kClass = 0x09;
constexpr std::size_t kBaseAddresses = 0x10;
constexpr std::size_t kSubsystemVendor = 0x2c;
constexpr std::size_t kSubsystem = 0x2e;
constexpr std::size_t kCapabilities = 0x34;
constexpr std::size_t kInterruptLine = 0x3c;

constexpr std::uint32_t kIoSpace = 1 << 0;
constexpr std::uint32_t kMemorySpace = 1 << 1;
constexpr std::uint32_t kBusMaster = 1 << 2;
constexpr std::uint32_t kInterruptDisable = 1 << 10;
constexpr std::uint32_t kWritableCommand = kMemorySpace | kBusMaster | kInterruptDisable;  // of every function
constexpr std::uint32_t kCapabilityList = 1 << 4;
// 6.2.5.1: the lowest bits of a base address say what it is of.
constexpr std::uint32_t kMemoryFlags = 0xf;
constexpr std::uint32_t kPortFlags = 0x3;
constexpr std::uint32_t kIsPorts = 0x1;
constexpr std::uint32_t kIs64Bits = 0x4;
constexpr std::uint32_t kMaxPorts = 256;

bool isPorts(const BaseAddress& base) {
  return base.kind == BaseKind::kPorts;
}
bool is64Bits(const BaseAddress& base) {
  return base.kind == BaseKind::kMemory64;
}

std::size_t registerOf(const BaseAddress& base) {
  return kBaseAddresses + 4 * std::size_t{base.index};
}

}  // namespace

Function::Function(const Identity& identity) {
  put(kVendor, identity.vendor, 2);
  put(kDevice, identity.device, 2);
  put(kRevision, identity.revision, 1);
  put(kClass, identity.classCode & 0xff, 1);
  put(kClass + 1, identity.classCode >> 8, 2);
  put(kSubsystemVendor, identity.subsystemVendor, 2);
  put(kSubsystem, identity.subsystem, 2);
  makeWritable(kCommand, kWritableCommand, 2);
  makeWritable(kInterruptLine, 0xff, 1);
}

void Function::readConfig(std::size_t offset, std::span<std::uint8_t> data) noexcept {
  std::copy_n(config_.begin() + static_cast<std::ptrdiff_t>(offset), data.size(), data.begin());
}

void Function::writeConfig(std::size_t offset, std::span<const std::uint8_t> data) noexcept {
  for (std::size_t i = 0; i < data.size(); ++i) {
    const std::uint8_t mask = writable_[offset + i];
    config_[offset + i] = static_cast<std::uint8_t>((config_[offset + i] & ~mask) | (data[i] & mask));
  }
}

std::optional<std::uint64_t> Function::decoded(const BaseAddress& base) const noexcept {
  if ((get(kCommand, 2) & (isPorts(base) ? kIoSpace : kMemorySpace)) == 0) {
    return std::nullopt;
  }
  std::uint64_t address = get(registerOf(base), 4) & ~(isPorts(base) ? kPortFlags : kMemoryFlags);
  if (is64Bits(base)) {
    address |= std::uint64_t{get(registerOf(base) + 4, 4)} << 32;
  }
  if (windows_ == nullptr || !windows_->hold(base.space(), address, base.bytes)) {
    return std::nullopt;
  }
  return address;
}

void Function::reset() {
  config_ = initial_;
}

std::size_t Function::addCapability(std::uint8_t id, std::span<const std::uint8_t> body) {
  const std::size_t offset = capabilityEnd_;
  const std::size_t bytes = (2 + body.size() + 3) / 4 * 4;
  if (offset + bytes > kConfigBytes) {
    throw Error(ErrorCode::kInternal, "a PCI function has more capabilities than room for them");
  }
  put(offset, id, 1);
  std::copy(body.begin(), body.end(), config_.begin() + static_cast<std::ptrdiff_t>(offset) + 2);
  put(lastCapability_ == 0 ? kCapabilities : lastCapability_ + 1, static_cast<std::uint32_t>(offset), 1);
  put(kStatus, get(kStatus, 2) | kCapabilityList, 2);
  lastCapability_ = offset;
  capabilityEnd_ = offset + bytes;
  return offset;
}

void Function::addBaseAddress(std::uint8_t index, std::uint32_t bytes, devices::BusDevice& target, BaseKind kind) {
  const BaseAddress& base = baseAddresses_.emplace_back(BaseAddress{index, bytes, &target, kind});
  if (index > (is64Bits(base) ? 4 : 5) || !std::has_single_bit(bytes) || bytes < 16 ||
      (isPorts(base) && bytes > kMaxPorts)) {
    throw Error(ErrorCode::kInternal, "a PCI base address that cannot be");
  }
  if (isPorts(base)) {
    makeWritable(kCommand, kWritableCommand | kIoSpace, 2);
  }
  // 6.2.5.1: the bits below its size read as zero, so that writing all ones tells the size.
  makeWritable(registerOf(base), ~(bytes - 1), 4);
  if (is64Bits(base)) {
    makeWritable(registerOf(base) + 4, 0xffffffff, 4);
  }
}

void Function::placeBaseAddress(const BaseAddress& base, std::uint32_t address) {
  put(registerOf(base), address | (isPorts(base) ? kIsPorts : 0) | (is64Bits(base) ? kIs64Bits : 0), 4);
}

void Function::makeWritable(std::size_t offset, std::uint32_t mask, std::size_t bytes) noexcept {
  std::memcpy(writable_.data() + offset, &mask, bytes);
}

void Function::put(std::size_t offset, std::uint32_t value, std::size_t bytes) noexcept {
  std::memcpy(config_.data() + offset, &value, bytes);
}

std::uint32_t Function::get(std::size_t offset, std::size_t bytes) const noexcept {
  std::uint32_t value = 0;
  std::memcpy(&value, config_.data() + offset, bytes);
  return value;
}

}  // namespace vmmhost::kvm::pci
