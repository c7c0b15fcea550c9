// virtio-console with several ports (virtio 1.2, 5.3).
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "vmmhost/fd.h"
#include "worker-kvm/io/call_job.h"
#include "worker-kvm/io/call_source.h"
#include "worker-kvm/io/event_thread.h"
#include "worker-kvm/virtio/console/control.h"
#include "worker-kvm/virtio/console/port.h"
#include "worker-kvm/virtio/device.h"
#include "worker-kvm/virtio/device_thread.h"

namespace vmmhost::kvm::virtio::console {

struct ConsoleOptions {
  std::string name = "console0";
  // Port 0 first. A port with a name is /dev/virtio-ports/NAME in a Linux guest, a console is /dev/hvcN.
  std::vector<Conversation::PortNature> ports = {{"", true}};
  // The guest has opened or closed a port. On the device's thread; may be empty. Only with several ports: a driver says
  // nothing of a single one.
  std::function<void(std::size_t port, bool open)> onGuestOpen;
};

class Console final : public Device, private DeviceThread::Server, private PortEvents {
 public:
  static constexpr std::size_t kMaxPorts = 16;
  static constexpr std::uint16_t kQueueSize = 64;

  // `sockets`: the host's ends of the ports are drained at all times; stream sockets, non-blocking, one for each port.
  // `thread` outlives the device and has rulesFor() these sockets among its rules, and may write to the descriptors of
  // the interrupts that the device is connected to. Throws Error.
  Console(io::EventThread& thread, ConsoleOptions options, std::vector<Fd> sockets);
  ~Console() override;
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  // What a thread needs for a device with these sockets.
  static confine::Rules rulesFor(std::span<const Fd> sockets);

  std::uint16_t type() const noexcept override { return kDeviceType; }
  const char* name() const noexcept override { return options_.name.c_str(); }
  std::uint64_t features() const noexcept override;
  std::span<const std::uint16_t> queueSizes() const noexcept override { return queueSizes_; }
  void readConfig(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override;
  void writeConfig(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept override;
  std::vector<int> configDescriptors() const override { return {thread_.wakeDescriptor()}; }
  void connect(Interrupts& interrupts) override { interrupts_ = &interrupts; }
  void activate(Activation activation) noexcept override { thread_.activate(std::move(activation)); }
  void deactivate(std::function<void()> done) noexcept override { thread_.deactivate(std::move(done)); }

  // By the control thread, once connected: the terminal that a port is shown on. Nothing is done about a port that is
  // not there, or is no console.
  void setSize(std::size_t port, TerminalSize size) noexcept;

 private:
  static constexpr std::size_t kEmergencyBytes = 256;
  static constexpr unsigned kMessagesPerTurn = 64;

  bool hasSeveralPorts() const noexcept { return ports_.size() > 1; }
  // On the device's thread.
  void start(Activation activation) noexcept override;
  bool stop() noexcept override;
  void takeTurns() noexcept;
  void sizeChanged() noexcept;
  void emergencyWritten() noexcept;
  void hear() noexcept;
  void say() noexcept;
  void broken() noexcept;
  void hostClosed(std::size_t port) noexcept override;
  void portBroken() noexcept override { broken(); }
  void wantsTurn() noexcept override { thread_.events().post(turns_); }
  void used(std::uint16_t queue) noexcept override { interrupts_->queueUsed(queue); }

  const ConsoleOptions options_;
  std::vector<std::uint16_t> queueSizes_;
  Interrupts* interrupts_ = nullptr;

  std::vector<std::atomic<std::uint32_t>> sizes_;  // by port: columns, and rows above them; 0: not known
  std::mutex emergencyMutex_;
  std::string emergency_;  // at most kEmergencyBytes, reserved

  Conversation conversation_;
  std::vector<std::unique_ptr<Port>> ports_;
  std::optional<ActiveQueue> toDriver_;
  std::optional<ActiveQueue> fromDriver_;
  std::uint64_t agreed_ = 0;  // features
  bool isBroken_ = false;
  Chain chain_;
  io::CallSource toDriverNotified_;
  io::CallSource fromDriverNotified_;
  io::CallJob turns_;
  io::CallJob resized_;
  io::CallJob emergencies_;
  DeviceThread thread_;  // ends first
};

}  // namespace vmmhost::kvm::virtio::console
