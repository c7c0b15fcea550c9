// What devices send to a guest and get from it by eventfds, past every thread of this process.
#pragma once

#include <cstdint>
#include <memory>

#include "worker-kvm/devices/bus.h"

namespace vmmhost::kvm::devices {

// A message-signalled interrupt: an eventfd whose writes become a message to the local APICs. From the threads of
// virtual CPUs and the control thread; event() may be written to by any thread.
class MessageVector {
 public:
  virtual ~MessageVector() = default;
  virtual int event() const noexcept = 0;
  // Writes are delivered as this message from now on; those that were collected, at once.
  virtual void connect(std::uint64_t address, std::uint32_t data) noexcept = 0;
  // Writes are collected.
  virtual void disconnect() noexcept = 0;
  virtual bool isPending() noexcept = 0;  // some were collected
  virtual void forget() noexcept = 0;     // what was collected
};

class MessageSource {
 public:
  virtual ~MessageSource() = default;
  // Disconnected. Only while the machine is made. Throws Error when there are no more.
  virtual std::unique_ptr<MessageVector> makeVector() = 0;
};

// Turns a guest's writes to an I/O port, or to an address of device memory, into writes to an eventfd.
class Doorbells {
 public:
  virtual ~Doorbells() = default;
  // A write of any size. False if the kernel refuses, as for an address that has one: writes come to the bus then.
  virtual bool attach(Space space, std::uint64_t address, int event) noexcept = 0;
  virtual void detach(Space space, std::uint64_t address, int event) noexcept = 0;
};

}  // namespace vmmhost::kvm::devices
