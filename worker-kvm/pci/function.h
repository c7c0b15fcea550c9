// One function of a conventional PCI device: its configuration space.
// Source: PCI Local Bus Specification 3.0, 6.1 (organization), 6.2.5 (base addresses), 6.7 (capabilities).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "worker-kvm/devices/bus.h"
#include "worker-kvm/pci/windows.h"

namespace vmmhost::kvm::pci {

struct Identity {
  std::uint16_t vendor = 0;
  std::uint16_t device = 0;
  std::uint32_t classCode = 0;  // 24 bits: class, subclass, interface
  std::uint8_t revision = 0;
  std::uint16_t subsystemVendor = 0;
  std::uint16_t subsystem = 0;
};

enum class BaseKind : std::uint8_t { kMemory32, kMemory64, kPorts };

// One of 64 bits takes the register behind its own, too. It is placed below 4 GiB all the same, where it is reached
// from every mode of a processor, until the guest moves it.
struct BaseAddress {
  std::uint8_t index = 0;   // 0 to 5
  std::uint32_t bytes = 0;  // a power of 2, at least 16; of ports at most 256
  devices::BusDevice* target = nullptr;
  BaseKind kind = BaseKind::kMemory32;

  devices::Space space() const noexcept {
    return kind == BaseKind::kPorts ? devices::Space::kPorts : devices::Space::kMemory;
  }
};

class Root;

// Configuration accesses come from virtual CPUs, one at a time for all functions: the root takes care of that.
class Function {
 public:
  static constexpr std::size_t kConfigBytes = 256;

  explicit Function(const Identity& identity);
  virtual ~Function() = default;
  Function(const Function&) = delete;
  Function& operator=(const Function&) = delete;

  // 1, 2 or 4 bytes, naturally aligned, inside the configuration space.
  virtual void readConfig(std::size_t offset, std::span<std::uint8_t> data) noexcept;
  virtual void writeConfig(std::size_t offset, std::span<const std::uint8_t> data) noexcept;

  // Where a base address register is decoded now; nothing while its space is switched off, or outside the bridge's
  // windows.
  std::optional<std::uint64_t> decoded(const BaseAddress& base) const noexcept;
  std::span<const BaseAddress> baseAddresses() const noexcept { return baseAddresses_; }

  // Told by the root after the guest changed what is decoded.
  virtual void decodingChanged() noexcept {}

  // The machine is about to be reset: stop touching guest memory. isQuiet() tells when that is so, after a wake of the
  // control thread. Both from the control thread.
  virtual void beginQuiet() noexcept {}
  virtual bool isQuiet() const noexcept { return true; }
  // Back to power-on, once quiet. Overrides call it.
  virtual void reset();
  // The machine is paused, or goes on: time of a timer stands still meanwhile. From the control thread, while no
  // virtual CPU runs.
  virtual void setRunning(bool) noexcept {}
  // What it writes to from the threads of virtual CPUs, for their filters.
  virtual std::vector<int> signalDescriptors() const { return {}; }
  // What its device's threads write to, to interrupt the guest.
  virtual std::vector<int> interruptDescriptors() const { return {}; }
  // For the log: what went wrong since the last call. Empty: nothing. From the control thread, after a wake.
  virtual std::string takeFault() { return {}; }

 protected:
  // All of these only while it is made. The offset of the capability in configuration space; `body` follows its ID and
  // next pointer.
  std::size_t addCapability(std::uint8_t id, std::span<const std::uint8_t> body);
  void addBaseAddress(std::uint8_t index, std::uint32_t bytes, devices::BusDevice& target,
                      BaseKind kind = BaseKind::kMemory32);
  // A guest can change these bits.
  void makeWritable(std::size_t offset, std::uint32_t mask, std::size_t bytes) noexcept;
  void put(std::size_t offset, std::uint32_t value, std::size_t bytes) noexcept;
  std::uint32_t get(std::size_t offset, std::size_t bytes) const noexcept;

 private:
  friend class Root;
  void placeBaseAddress(const BaseAddress& base, std::uint32_t address);

  std::array<std::uint8_t, kConfigBytes> config_{};
  std::array<std::uint8_t, kConfigBytes> writable_{};
  std::array<std::uint8_t, kConfigBytes> initial_{};  // as the root found it
  std::vector<BaseAddress> baseAddresses_;
  const Windows* windows_ = nullptr;  // of the root, once it is there
  std::size_t lastCapability_ = 0;
  std::size_t capabilityEnd_ = 0x40;
};

}  // namespace vmmhost::kvm::pci
