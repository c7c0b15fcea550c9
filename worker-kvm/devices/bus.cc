#include "worker-kvm/devices/bus.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>

#include "vmmhost/error.h"

namespace vmmhost::kvm::devices {

namespace {

std::string describe(const std::string& owner, std::uint64_t start, std::uint64_t bytes) {
  char range[64];
  std::snprintf(range, sizeof range, " (0x%" PRIx64 " to 0x%" PRIx64 ")", start, start + bytes - 1);
  return owner + range;
}

}  // namespace

Bus::Registration::Registration(Bus& bus, std::uint64_t start, std::uint64_t bytes, BusDevice& device,
                                std::string owner)
    : bus_(bus), start_(start) {
  if (bytes == 0 || start + (bytes - 1) < start) {
    throw Error(ErrorCode::kInvalidArgument, bus.name_ + " range of " + owner + " is empty or overflows");
  }
  const auto after = std::upper_bound(bus.entries_.begin(), bus.entries_.end(), start,
                                      [](std::uint64_t value, const Entry& entry) { return value < entry.start; });
  const Entry* clash = nullptr;
  if (after != bus.entries_.end() && after->start - start < bytes) {
    clash = &*after;
  } else if (after != bus.entries_.begin() && start - std::prev(after)->start < std::prev(after)->bytes) {
    clash = &*std::prev(after);
  }
  if (clash != nullptr) {
    throw Error(ErrorCode::kAlreadyExists, bus.name_ + " range of " + describe(owner, start, bytes) +
                                               " overlaps that of " +
                                               describe(clash->owner, clash->start, clash->bytes));
  }
  bus.entries_.insert(after, {start, bytes, &device, std::move(owner)});
}

Bus::Registration::~Registration() {
  std::erase_if(bus_.entries_, [this](const Entry& entry) { return entry.start == start_; });
}

const Bus::Entry* Bus::find(std::uint64_t address, std::size_t bytes) const noexcept {
  const auto after = std::upper_bound(entries_.begin(), entries_.end(), address,
                                      [](std::uint64_t value, const Entry& entry) { return value < entry.start; });
  if (after == entries_.begin()) {
    return nullptr;
  }
  const Entry& entry = *std::prev(after);
  const std::uint64_t offset = address - entry.start;
  return offset < entry.bytes && bytes <= entry.bytes - offset ? &entry : nullptr;
}

bool Bus::read(std::uint64_t address, std::span<std::uint8_t> data) const noexcept {
  const Entry* entry = find(address, data.size());
  if (entry == nullptr) {
    std::fill(data.begin(), data.end(), std::uint8_t{0xff});
    return false;
  }
  entry->device->read(address - entry->start, data);
  return true;
}

bool Bus::write(std::uint64_t address, std::span<const std::uint8_t> data) const noexcept {
  const Entry* entry = find(address, data.size());
  if (entry == nullptr) {
    return false;
  }
  entry->device->write(address - entry->start, data);
  return true;
}

void Bus::resetDevices() {
  std::vector<BusDevice*> devices;
  for (const Entry& entry : entries_) {
    devices.push_back(entry.device);
  }
  std::sort(devices.begin(), devices.end());
  devices.erase(std::unique(devices.begin(), devices.end()), devices.end());
  for (BusDevice* device : devices) {
    device->reset();
  }
}

}  // namespace vmmhost::kvm::devices
