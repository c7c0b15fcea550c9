#include "worker-kvm/pci/msix.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "worker-kvm/io/calls.h"

namespace vmmhost::kvm::pci {

namespace {

constexpr std::uint16_t kEnable = 1 << 15;
constexpr std::uint16_t kFunctionMask = 1 << 14;
constexpr std::uint32_t kEntryMask = 1;
constexpr std::uint64_t kEntryBytes = 16;

bool isNatural(std::uint64_t offset, std::size_t bytes) noexcept {
  return (bytes == 4 || bytes == 8) && offset % bytes == 0;
}

}  // namespace

Msix::Msix(devices::MessageSource& source, unsigned count) : entries_(count) {
  for (Entry& entry : entries_) {
    entry.vector = source.makeVector();
    entry.event = entry.vector->event();
  }
}

void Msix::signal(std::uint16_t vector) const noexcept {
  if (vector < entries_.size()) {
    const std::uint64_t one = 1;
    io::writeTo(entries_[vector].event, &one, sizeof one);
  }
}

std::array<std::uint8_t, 10> Msix::capability(std::uint8_t bar, std::uint32_t tableOffset,
                                              std::uint32_t pendingOffset) const noexcept {
  std::array<std::uint8_t, 10> body{};
  const auto control = static_cast<std::uint16_t>(entries_.size() - 1);
  const std::uint32_t table = tableOffset | bar;
  const std::uint32_t pending = pendingOffset | bar;
  std::memcpy(body.data(), &control, 2);
  std::memcpy(body.data() + 2, &table, 4);
  std::memcpy(body.data() + 6, &pending, 4);
  return body;
}

void Msix::setControl(std::uint16_t control) noexcept {
  const std::lock_guard lock(mutex_);
  const std::uint16_t before = control_;
  control_ = control & kControlWritable;
  if (control_ != before) {
    for (Entry& entry : entries_) {
      apply(entry);
    }
  }
}

void Msix::readTable(std::uint64_t offset, std::span<std::uint8_t> data) noexcept {
  std::fill(data.begin(), data.end(), std::uint8_t{0xff});
  const std::uint64_t index = offset / kEntryBytes;
  if (!isNatural(offset, data.size()) || index >= entries_.size()) {
    return;
  }
  const std::lock_guard lock(mutex_);
  const Entry& entry = entries_[index];
  std::array<std::uint8_t, kEntryBytes> bytes;
  std::memcpy(bytes.data(), &entry.address, 8);
  std::memcpy(bytes.data() + 8, &entry.data, 4);
  std::memcpy(bytes.data() + 12, &entry.control, 4);
  std::memcpy(data.data(), bytes.data() + offset % kEntryBytes, data.size());
}

void Msix::writeTable(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept {
  if (!isNatural(offset, data.size()) || offset / kEntryBytes >= entries_.size()) {
    return;
  }
  const std::lock_guard lock(mutex_);
  for (std::size_t done = 0; done < data.size(); done += 4) {
    std::uint32_t value = 0;
    std::memcpy(&value, data.data() + done, 4);
    writeWord(offset + done, value);
  }
  apply(entries_[offset / kEntryBytes]);
}

void Msix::writeWord(std::uint64_t offset, std::uint32_t value) noexcept {
  Entry& entry = entries_[offset / kEntryBytes];
  switch (offset % kEntryBytes) {
    case 0:
      entry.address = (entry.address & ~std::uint64_t{0xffffffff}) | (value & ~std::uint32_t{3});
      break;
    case 4:
      entry.address = (entry.address & 0xffffffff) | std::uint64_t{value} << 32;
      break;
    case 8:
      entry.data = value;
      break;
    default:
      entry.control = value & kEntryMask;
      break;
  }
}

void Msix::readPending(std::uint64_t offset, std::span<std::uint8_t> data) noexcept {
  std::fill(data.begin(), data.end(), std::uint8_t{0});
  if (!isNatural(offset, data.size())) {
    return;
  }
  const std::lock_guard lock(mutex_);
  for (std::size_t bit = 0; bit < data.size() * 8; ++bit) {
    const std::uint64_t index = offset * 8 + bit;
    // What is connected was delivered.
    if (index < entries_.size() && !entries_[index].isConnected && entries_[index].vector->isPending()) {
      data[bit / 8] = static_cast<std::uint8_t>(data[bit / 8] | 1U << bit % 8);
    }
  }
}

void Msix::reset() noexcept {
  const std::lock_guard lock(mutex_);
  control_ = 0;
  for (Entry& entry : entries_) {
    entry.address = 0;
    entry.data = 0;
    entry.control = kEntryMask;
    apply(entry);
    entry.vector->forget();
  }
}

void Msix::apply(Entry& entry) noexcept {
  const bool connect =
      (control_ & kEnable) != 0 && (control_ & kFunctionMask) == 0 && (entry.control & kEntryMask) == 0;
  if (!connect) {
    if (std::exchange(entry.isConnected, false)) {
      entry.vector->disconnect();
    }
    return;
  }
  if (!entry.isConnected || entry.sentAddress != entry.address || entry.sentData != entry.data) {
    entry.isConnected = true;
    entry.sentAddress = entry.address;
    entry.sentData = entry.data;
    entry.vector->connect(entry.address, entry.data);
  }
}

}  // namespace vmmhost::kvm::pci
