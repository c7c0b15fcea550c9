// A virtio device as a PCI function.
// Source: virtio 1.2, 4.1 (virtio over PCI bus).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "worker-kvm/devices/bus.h"
#include "worker-kvm/devices/signals.h"
#include "worker-kvm/memory/guest_memory.h"
#include "worker-kvm/pci/function.h"
#include "worker-kvm/pci/msix.h"
#include "worker-kvm/threads/control_calls.h"
#include "worker-kvm/threads/wake.h"
#include "worker-kvm/virtio/device.h"

namespace vmmhost::kvm::virtio {

// What of a machine a transport needs; all of it outlives the transport.
struct TransportContext {
  const memory::GuestMemory& memory;
  devices::MessageSource& messages;
  devices::Doorbells& doorbells;
  threads::ControlCalls& calls;
  const threads::Wake& wake;  // signalled when a device has become quiet
};

class PciTransport final : public pci::Function, private Interrupts {
 public:
  PciTransport(std::unique_ptr<Device> device, const TransportContext& context);
  ~PciTransport() override;

  void readConfig(std::size_t offset, std::span<std::uint8_t> data) noexcept override;
  void writeConfig(std::size_t offset, std::span<const std::uint8_t> data) noexcept override;
  void decodingChanged() noexcept override;
  void beginQuiet() noexcept override;
  bool isQuiet() const noexcept override { return !isLeaving_.load(); }
  void reset() override;
  std::vector<int> signalDescriptors() const override;
  std::vector<int> interruptDescriptors() const override { return descriptors(); }
  std::string takeFault() override;

 private:
  // The memory window; what lies where in it is told by capabilities.
  class Window final : public devices::BusDevice {
   public:
    explicit Window(PciTransport& transport) : transport_(transport) {}
    void read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override;
    void write(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept override;
    void reset() override {}

   private:
    PciTransport& transport_;
  };

  // Doorbells once more, as I/O ports: a write to a port is told to KVM with all that there is to know of it, while one
  // to memory is an instruction that it has to fetch and decode (not on Intel's processors, where a port is no worse).
  class Ports final : public devices::BusDevice {
   public:
    explicit Ports(PciTransport& transport) : transport_(transport) {}
    void read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override;
    void write(std::uint64_t offset, std::span<const std::uint8_t>) noexcept override { transport_.notify(offset); }
    void reset() override {}

   private:
    PciTransport& transport_;
  };

  struct QueueState {
    std::uint16_t maxSize = 0;
    std::uint16_t size = 0;
    bool isEnabled = false;
    std::uint64_t descriptorTable = 0;
    std::uint64_t availableRing = 0;
    std::uint64_t usedRing = 0;
    std::atomic<std::uint16_t> vector = pci::kNoVector;
    threads::Wake notified;
  };

  [[gnu::hot]] void queueUsed(std::uint16_t queue) noexcept override;
  [[gnu::hot]] bool areToldTogether(std::uint16_t one, std::uint16_t other) const noexcept override;
  void configChanged() noexcept override;
  void deviceBroken(const char* reason) noexcept override;
  std::vector<int> descriptors() const override;

  void addCapabilities();
  devices::BusDevice* configAccessTarget(std::size_t offset, std::size_t bytes) const noexcept;  // null: none
  void readWindow(std::uint64_t offset, std::span<std::uint8_t> data) noexcept;
  void writeWindow(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept;
  std::uint32_t readCommon(std::uint64_t offset) noexcept;
  void writeCommon(std::uint64_t offset, std::uint32_t value, std::size_t bytes) noexcept;
  void writeQueueField(std::uint64_t offset, std::uint32_t value, std::size_t bytes) noexcept;
  void setStatus(std::uint8_t status) noexcept;
  void activate() noexcept;
  void beginDeactivate() noexcept;
  void finishReset() noexcept;
  void forgetDriver() noexcept;
  void notify(std::uint64_t offset) noexcept;
  void placeDoorbells() noexcept;
  QueueState* selectedQueue() noexcept;
  std::uint16_t acceptedVector(std::uint32_t value) const noexcept;

  TransportContext context_;
  std::unique_ptr<Device> device_;
  const std::uint64_t offeredFeatures_;
  pci::Msix msix_;
  Window window_;
  Ports ports_;
  std::size_t msixCapability_ = 0;
  std::size_t configAccessCapability_ = 0;  // VIRTIO_PCI_CAP_PCI_CFG
  std::vector<std::unique_ptr<QueueState>> queues_;

  // Held while a virtual CPU waits for the control thread, which takes it only when none runs.
  std::mutex mutex_;
  std::uint32_t deviceFeatureSelect_ = 0;
  std::uint32_t driverFeatureSelect_ = 0;
  std::uint64_t driverFeatures_ = 0;
  std::uint16_t queueSelect_ = 0;
  std::atomic<std::uint16_t> configVector_ = pci::kNoVector;
  std::atomic<std::uint8_t> configGeneration_ = 0;
  std::atomic<bool> needsReset_ = false;
  std::atomic<const char*> fault_ = nullptr;  // not told yet
  std::uint8_t status_ = 0;
  bool isActive_ = false;                                      // between activate and deactivate; of the control thread
  std::atomic<bool> isLeaving_ = false;                        // between deactivate and its end
  bool resetIsAsked_ = false;                                  // the driver waits for its status to read 0
  std::array<std::optional<std::uint64_t>, 2> doorbellBases_;  // by base address: where they are attached
};

}  // namespace vmmhost::kvm::virtio
