// What a virtio device is to its transport.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "worker-kvm/virtio/queue.h"

namespace vmmhost::kvm::virtio {

// Tells the driver that something happened: one write to an eventfd. From any thread.
class Interrupts {
 public:
  virtual ~Interrupts() = default;
  virtual void queueUsed(std::uint16_t queue) noexcept = 0;
  // The driver hears of both by the same interrupt, and then looks at both.
  virtual bool areToldTogether(std::uint16_t, std::uint16_t) const noexcept { return false; }
  virtual void configChanged() noexcept = 0;
  // The driver broke the rules: sets DEVICE_NEEDS_RESET (virtio 1.2, 2.1) and tells the driver.
  virtual void deviceBroken(const char* reason) noexcept = 0;  // `reason` is a literal, for the log
  // The descriptors that the above write to, for seccomp filters. Known before the device is activated.
  virtual std::vector<int> descriptors() const = 0;
};

struct ActiveQueue {
  std::uint16_t index = 0;
  Queue queue;
  int notified = -1;  // eventfd, readable when the driver has notified; the transport keeps it open
};

// What a device works with from DRIVER_OK on.
struct Activation {
  std::uint64_t features = 0;                      // agreed on
  std::vector<std::optional<ActiveQueue>> queues;  // by index; nothing where the driver did not enable one

  // Moves a queue out; nothing where there is none.
  std::optional<ActiveQueue> moveQueue(std::size_t index) noexcept {
    return index < queues.size() ? std::exchange(queues[index], std::nullopt) : std::nullopt;
  }
};

// A device without its transport. What is not said otherwise is called from the threads of virtual CPUs, one at a time;
// the configuration space is read while the device's own threads run.
class Device {
 public:
  virtual ~Device() = default;

  virtual std::uint16_t type() const noexcept = 0;  // virtio 1.2, 5: device ID
  virtual const char* name() const noexcept = 0;    // for logs and threads, e.g. "blk0"
  // Of the device and of its queues (VIRTIO_F_INDIRECT_DESC, VIRTIO_F_EVENT_IDX); VIRTIO_F_VERSION_1 is the
  // transport's.
  virtual std::uint64_t features() const noexcept = 0;
  virtual std::span<const std::uint16_t> queueSizes() const noexcept = 0;  // the largest that each queue may have

  // MSI-X vectors to offer. A driver that has fewer than one for each queue and one more lets all queues share one.
  virtual unsigned interruptVectors() const noexcept { return static_cast<unsigned>(queueSizes().size()) + 1; }

  // The device's configuration space (virtio 1.2, 2.5). 1, 2, 4 or 8 bytes, anywhere: reads beyond the end give 0.
  virtual void readConfig(std::uint64_t offset, std::span<std::uint8_t> data) noexcept = 0;
  virtual void writeConfig(std::uint64_t, std::span<const std::uint8_t>) noexcept {}
  // The eventfds that the above write to, for the filters of virtual CPUs, whose threads call them. Known once
  // connected.
  virtual std::vector<int> configDescriptors() const { return {}; }

  // Once, before everything else, by the control thread while it may still create: where to report. Outlives the
  // device. A device whose threads' filters name the descriptors of `interrupts` starts them here. Throws Error.
  virtual void connect(Interrupts& interrupts) = 0;
  // DRIVER_OK: serve the queues, on threads of the device, until deactivate. Both by the control thread.
  virtual void activate(Activation activation) noexcept = 0;
  // Forget the driver. `done` is called once, from any thread and maybe before this returns, when no thread of the
  // device touches guest memory any more. No wait in here. Called once after each activate.
  virtual void deactivate(std::function<void()> done) noexcept = 0;
};

// Helper for readConfig: the bytes of `config` at `offset`, zeros beyond its end.
void readBytes(memory::ConstBytes config, std::uint64_t offset, std::span<std::uint8_t> data) noexcept;

}  // namespace vmmhost::kvm::virtio
