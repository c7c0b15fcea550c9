// Random bytes for the guest: the virtio entropy device.
// Source: virtio 1.2, 5.4.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "vmmhost/fd.h"
#include "worker-kvm/confine/rules.h"
#include "worker-kvm/io/event_thread.h"
#include "worker-kvm/virtio/device.h"
#include "worker-kvm/virtio/device_thread.h"

namespace vmmhost::kvm::virtio::rng {

inline constexpr std::uint16_t kDeviceType = 4;
inline constexpr std::uint16_t kQueueSize = 64;
inline constexpr std::size_t kMaxRequestBytes = 64 * 1024;

struct RngOptions {
  std::string name = "rng0";
  // Where the bytes come from, opened with O_NONBLOCK: what it does not have at once the kernel adds. Empty: all of
  // them are the kernel's.
  Fd source;
};

class RngDevice final : public Device, private DeviceThread::Server {
 public:
  // `thread` outlives the device, and is one that others may share: its filter has rules() and writes to the
  // descriptors of the interrupts that the device is connected to.
  RngDevice(io::EventThread& thread, RngOptions options);

  static confine::Rules rules(int source = -1);

  std::uint16_t type() const noexcept override { return kDeviceType; }
  const char* name() const noexcept override { return options_.name.c_str(); }
  std::uint64_t features() const noexcept override;
  std::span<const std::uint16_t> queueSizes() const noexcept override { return {&kQueueSize, 1}; }
  void readConfig(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override;
  void connect(Interrupts& interrupts) override { interrupts_ = &interrupts; }
  void activate(Activation activation) noexcept override { thread_.activate(std::move(activation)); }
  void deactivate(std::function<void()> done) noexcept override { thread_.deactivate(std::move(done)); }

 private:
  class Call final : public io::EventThread::Source, public io::EventThread::Job {
   public:
    using Function = void (RngDevice::*)() noexcept;
    Call(RngDevice& device, Function function) : device_(device), function_(function) {}
    void ready(std::uint32_t) noexcept override { (device_.*function_)(); }
    void run() noexcept override { (device_.*function_)(); }

   private:
    RngDevice& device_;
    Function function_;
  };

  // On the thread.
  void start(Activation activation) noexcept override;
  bool stop() noexcept override;
  void serve() noexcept;
  // Fills the driver's buffer, up to the limit; how many bytes.
  std::uint32_t fill(std::span<const iovec> segments) const noexcept;

  const RngOptions options_;
  Interrupts* interrupts_ = nullptr;

  // Of the thread.
  std::optional<ActiveQueue> active_;
  Chain chain_;

  Call kicked_{*this, &RngDevice::serve};
  DeviceThread thread_;  // ends first
};

}  // namespace vmmhost::kvm::virtio::rng
