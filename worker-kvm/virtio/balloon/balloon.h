// virtio-balloon: memory that the guest gives back (virtio 1.2, 5.5).
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "worker-kvm/io/call_job.h"
#include "worker-kvm/io/call_source.h"
#include "worker-kvm/io/event_thread.h"
#include "worker-kvm/memory/guest_memory.h"
#include "worker-kvm/virtio/device.h"
#include "worker-kvm/virtio/device_thread.h"
#include "worker-kvm/virtio/features.h"

namespace vmmhost::kvm::virtio::balloon {

inline constexpr std::uint16_t kDeviceType = 5;
// 5.5.3.
inline constexpr std::uint64_t kDeflateOnOom = featureBit(2);
inline constexpr std::uint64_t kReporting = featureBit(5);

// 5.5.2.
inline constexpr std::size_t kInflateQueue = 0;
inline constexpr std::size_t kDeflateQueue = 1;
inline constexpr std::size_t kReportingQueue = 4;

struct BalloonOptions {
  std::string name = "balloon0";
  std::uint64_t targetBytes = 0;
  bool deflateOnOom = true;
  bool freePageReporting = false;
};

struct BalloonCounters {
  std::atomic<std::uint64_t> inflatedPages = 0;  // given back by the balloon's growth
  std::atomic<std::uint64_t> deflatedPages = 0;  // taken out of it
  std::atomic<std::uint64_t> reportedBytes = 0;  // given back because they were free
  std::atomic<std::uint64_t> refusedPages = 0;   // named, and no guest memory
};

// What the driver names is given back to the system at once, and reads as zero when the guest touches it again. Which
// pages these are is the guest's business, as long as they are its own.
class Balloon final : public Device, private DeviceThread::Server {
 public:
  static constexpr std::uint16_t kQueueSize = 128;

  // `thread` and `memory` outlive the device. The thread has rulesFor(memory) among its rules, and may write to the
  // descriptors of the interrupts that the device is connected to. Throws Error for a target above all of the memory.
  Balloon(io::EventThread& thread, const memory::GuestMemory& memory, BalloonOptions options);

  // Private memory is given back by madvise(MADV_DONTNEED), whose range no filter can look at: a thread that is not
  // ours any more could have its own process read zeros. Shared memory is given back by holes in these files only.
  static confine::Rules rulesFor(const memory::GuestMemory& memory);

  std::uint16_t type() const noexcept override { return kDeviceType; }
  const char* name() const noexcept override { return options_.name.c_str(); }
  std::uint64_t features() const noexcept override;
  std::span<const std::uint16_t> queueSizes() const noexcept override { return queueSizes_; }
  void readConfig(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override;
  void writeConfig(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept override;
  void connect(Interrupts& interrupts) override { interrupts_ = &interrupts; }
  void activate(Activation activation) noexcept override { thread_.activate(std::move(activation)); }
  void deactivate(std::function<void()> done) noexcept override;

  // By the control thread: how much the guest is asked to give up, rounded down to pages. Throws
  // Error(kInvalidArgument) for more than it has.
  void setTarget(std::uint64_t bytes);
  // Any thread.
  std::uint64_t target() const noexcept;
  // How much the guest says it has given up; never more than it has.
  std::uint64_t actual() const noexcept;
  const BalloonCounters& counters() const noexcept { return counters_; }

 private:
  static constexpr std::size_t kNumbersAtATime = 256;  // as Linux names them
  static constexpr unsigned kPiecesPerTurn = 16;

  // A queue of ours, and the chain that is being worked at.
  struct Served {
    explicit Served(std::function<void()> serve) : notified([call = std::move(serve)](std::uint32_t) { call(); }) {}
    io::CallSource notified;
    std::optional<ActiveQueue> active;
    Chain chain;
    bool hasChain = false;
    std::uint64_t done = 0;  // bytes of it
  };

  std::uint32_t pagesFor(std::uint64_t bytes) const;
  // On the thread.
  void start(Activation activation) noexcept override;
  bool stop() noexcept override;
  void serveAll() noexcept;
  void serve(Served& served, bool (Balloon::*piece)(Served&) noexcept) noexcept;
  // True when the chain is finished.
  bool inflatePiece(Served& served) noexcept;
  bool deflatePiece(Served& served) noexcept;
  bool reportPiece(Served& served) noexcept;
  std::span<std::uint32_t> nextNumbers(Served& served) noexcept;
  void giveBack(const memory::GuestMemory::Region& region, std::uint64_t offset, std::uint64_t bytes) noexcept;

  const memory::GuestMemory& memory_;
  const BalloonOptions options_;
  const std::array<std::uint16_t, kReportingQueue + 1> queueSizes_{kQueueSize, kQueueSize, kQueueSize, kQueueSize,
                                                                   kQueueSize};
  Interrupts* interrupts_ = nullptr;
  std::atomic<std::uint32_t> targetPages_ = 0;
  std::atomic<std::uint32_t> actualPages_ = 0;
  BalloonCounters counters_;

  bool isBroken_ = false;
  Served inflate_;
  Served deflate_;
  Served report_;
  std::array<std::uint32_t, kNumbersAtATime> numbers_{};
  std::vector<memory::Range> ranges_;
  io::CallJob more_;
  DeviceThread thread_;  // ends first
};

}  // namespace vmmhost::kvm::virtio::balloon
