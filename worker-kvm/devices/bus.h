// Address spaces that devices answer in: I/O ports, and memory that is not RAM.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace vmmhost::kvm::devices {

// What answers at a range of a bus. Called from the threads of all virtual CPUs at once.
class BusDevice {
 public:
  virtual ~BusDevice() = default;
  // `offset` is relative to the range's start; the access is entirely inside it. 1 to 8 bytes, in guest (little-endian)
  // order. They never block and never throw: what a guest does is ordinary.
  virtual void read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept = 0;
  virtual void write(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept = 0;
  // Back to the state at power-on. No virtual CPU runs meanwhile.
  virtual void reset() = 0;
};

// A set of disjoint ranges with a device each. A device joins by making a Registration, which it keeps: nothing else
// knows which devices there are. Registrations are made and ended only while no virtual CPU runs; read() and write()
// need no lock therefore.
class Bus {
 public:
  // `name` is for errors: "port" or "memory".
  explicit Bus(std::string name) : name_(std::move(name)) {}
  Bus(const Bus&) = delete;
  Bus& operator=(const Bus&) = delete;

  class Registration {
   public:
    // Throws kAlreadyExists if the range overlaps another, kInvalidArgument if it is empty or overflows. `owner` names
    // the device in errors.
    Registration(Bus& bus, std::uint64_t start, std::uint64_t bytes, BusDevice& device, std::string owner);
    ~Registration();
    Registration(const Registration&) = delete;
    Registration& operator=(const Registration&) = delete;

   private:
    Bus& bus_;
    std::uint64_t start_;
  };

  // False if nothing answers; a read gives all ones then, as the bus of a PC does.
  bool read(std::uint64_t address, std::span<std::uint8_t> data) const noexcept;
  bool write(std::uint64_t address, std::span<const std::uint8_t> data) const noexcept;

  // Each device once, however many ranges it has.
  void resetDevices();

 private:
  struct Entry {
    std::uint64_t start;
    std::uint64_t bytes;
    BusDevice* device;
    std::string owner;
  };
  const Entry* find(std::uint64_t address, std::size_t bytes) const noexcept;

  std::string name_;
  std::vector<Entry> entries_;  // by start
};

enum class Space : std::uint8_t { kMemory, kPorts };

// The two buses are different types, so that a device cannot end up on the wrong one.
class PortBus : public Bus {
 public:
  PortBus() : Bus("port") {}
};
class MmioBus : public Bus {
 public:
  MmioBus() : Bus("memory") {}
};

}  // namespace vmmhost::kvm::devices
