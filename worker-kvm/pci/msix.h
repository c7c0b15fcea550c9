// MSI-X of a function: table, pending bits and capability.
// Source: PCI Local Bus Specification 3.0, 6.8.2 (MSI-X), 6.8.3.5 (masking), 6.8.3.4 (pending).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "worker-kvm/devices/bus.h"
#include "worker-kvm/devices/signals.h"

namespace vmmhost::kvm::pci {

inline constexpr std::uint8_t kMsixCapability = 0x11;
inline constexpr std::uint16_t kNoVector = 0xffff;

class Msix final {
 public:
  static constexpr unsigned kMaxVectors = 256;
  static constexpr std::uint32_t kTableBytes = kMaxVectors * 16;

  // `count`: 1 to kMaxVectors.
  Msix(devices::MessageSource& source, unsigned count);

  unsigned count() const noexcept { return static_cast<unsigned>(entries_.size()); }
  int event(unsigned vector) const { return entries_.at(vector).event; }
  // From any thread. Nothing happens for kNoVector and for vectors that there are not.
  [[gnu::hot]] void signal(std::uint16_t vector) const noexcept;

  // The body of the capability, for a table and pending bits in this base address register at these offsets.
  std::array<std::uint8_t, 10> capability(std::uint8_t bar, std::uint32_t tableOffset,
                                          std::uint32_t pendingOffset) const noexcept;
  // The bits of message control that a guest may write: enable and function mask.
  static constexpr std::uint16_t kControlWritable = 0xc000;
  void setControl(std::uint16_t control) noexcept;

  // Accesses to the table, of 4 or 8 bytes, naturally aligned; others do nothing and read as ones.
  void readTable(std::uint64_t offset, std::span<std::uint8_t> data) noexcept;
  void writeTable(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept;
  void readPending(std::uint64_t offset, std::span<std::uint8_t> data) noexcept;

  void reset() noexcept;

 private:
  struct Entry {
    std::uint64_t address = 0;
    std::uint32_t data = 0;
    std::uint32_t control = 1;  // masked
    std::unique_ptr<devices::MessageVector> vector;
    int event = -1;  // of the vector
    // What the vector was told last.
    bool isConnected = false;
    std::uint64_t sentAddress = 0;
    std::uint32_t sentData = 0;
  };
  void apply(Entry& entry) noexcept;
  void writeWord(std::uint64_t offset, std::uint32_t value) noexcept;

  // Held while a virtual CPU waits for the control thread, which comes here only when none runs.
  std::mutex mutex_;
  std::vector<Entry> entries_;
  std::uint16_t control_ = 0;
};

}  // namespace vmmhost::kvm::pci
