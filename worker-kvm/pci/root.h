// The PCI host: one bus, its configuration accesses, and the windows of memory and ports that functions answer in.
// Source: PCI Firmware Specification 3.2, 4.1 (ECAM); PCI Local Bus Specification 3.0, 3.2.2.3.2 (ports 0xcf8, 0xcfc).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <vector>

#include "worker-kvm/devices/bus.h"
#include "worker-kvm/pci/function.h"

namespace vmmhost::kvm::pci {

inline constexpr std::size_t kMaxFunctions = 32;  // devices of one bus, each with function 0 only

class Root {
 public:
  // `window64`: for base addresses of 64 bits, behind the guest's memory; nothing where there is no room.
  Root(devices::PortBus& ports, devices::MmioBus& memory, std::optional<memory::Range> window64);
  ~Root();
  Root(const Root&) = delete;
  Root& operator=(const Root&) = delete;

  // At the next free device number, its base addresses placed in the windows. Only while the machine is made. Throws
  // kResourceExhausted.
  void add(std::unique_ptr<Function> function);
  std::size_t count() const noexcept { return functions_.size(); }

  void beginQuiet() noexcept;
  bool isQuiet() const noexcept;
  void reset();
  void setRunning(bool running) noexcept;
  std::vector<int> signalDescriptors() const;
  std::vector<int> interruptDescriptors() const;
  std::vector<std::string> takeFaults();

 private:
  class Bridge;
  class Window;
  class Ecam;
  class Ports;

  void readConfig(std::uint32_t busDeviceFunction, std::size_t offset, std::span<std::uint8_t> data) noexcept;
  void writeConfig(std::uint32_t busDeviceFunction, std::size_t offset, std::span<const std::uint8_t> data) noexcept;
  void decode();

  std::mutex configMutex_;
  std::vector<std::unique_ptr<Function>> functions_;  // by device number
  const Windows windows_;
  std::unique_ptr<Window> memory32_;
  std::unique_ptr<Window> memory64_;  // null: there is none
  std::unique_ptr<Window> io_;
  std::unique_ptr<Ecam> ecam_;
  std::unique_ptr<Ports> ports_;
};

}  // namespace vmmhost::kvm::pci
