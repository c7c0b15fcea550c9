// virtio-vsock: stream sockets between ports of a guest and Unix sockets of its host.
// Source: virtio 1.2, 5.10.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "vmmhost/fd.h"
#include "worker-kvm/io/call_job.h"
#include "worker-kvm/io/event_thread.h"
#include "worker-kvm/virtio/device.h"
#include "worker-kvm/virtio/device_thread.h"
#include "worker-kvm/virtio/vsock/mux.h"

namespace vmmhost::kvm::virtio::vsock {

class Vsock;

// Gets at sockets of the host, which this process cannot open: asks somebody who can.
class HostConnector {
 public:
  virtual ~HostConnector() = default;
  // From the device's thread: have hostAnswered() of `device` called with what the host says. False: too many are being
  // asked for.
  virtual bool ask(Vsock& device, const Ticket& ticket, std::uint32_t port) noexcept = 0;
  // The descriptors that ask() writes to, for the thread's filter.
  virtual std::vector<int> descriptors() const = 0;
};

struct Options {
  std::uint64_t guestCid = 3;
  Limits limits;
  // Sockets get numbers from here on, as many as there may be connections, so that the thread's filter can tell them
  // from all other descriptors. The process may have that many (RLIMIT_NOFILE).
  int firstDescriptor = 256;
  // Whether one with another number is duplicated. A worker's filter may allow none: then the process has filled all
  // numbers below, so that none comes.
  bool duplicates = true;
  // That its packets are used is of little interest to a guest that goes on sending, and hearing of it is dear: it sees
  // a sixteenth of its queue with an answer, an eighth at once, and else what there is this long after the first (nine
  // times as long while it sees others), as network cards do it.
  std::chrono::milliseconds usedDelay{10};
};

class Vsock final : public Device, private DeviceThread::Server {
 public:
  // `connector` outlives it. Throws Error.
  Vsock(const Options& options, HostConnector& connector);
  ~Vsock() override;

  // A client of the host for `port` of the guest: from the control thread. The device writes "OK <host port>\n" when
  // the guest has accepted, before anything else, and closes the socket if it does not. Throws Error when it cannot be
  // taken: it blocks, or there are too many.
  void connectToGuest(Fd socket, std::uint32_t port);
  // The answer to HostConnector::ask: a connected socket that does not block, or none. From the control thread.
  void hostAnswered(const Ticket& ticket, Fd socket) noexcept;
  // The guest goes on after it was away, as from a snapshot: what was connected is not any more, and its driver is told
  // to look for its CID again (5.10.6.7). From the control thread.
  void announceTransportReset() noexcept;
  // As of a moment ago; from any thread.
  std::size_t connections() const noexcept { return connectionCount_.load(std::memory_order_relaxed); }

  // What activate and deactivate write to, for the filters of the threads that call them. After connect.
  int wakeDescriptor() const noexcept { return thread_->wakeDescriptor(); }

  std::uint16_t type() const noexcept override { return 19; }  // 5.10.1
  const char* name() const noexcept override { return "vsock"; }
  std::uint64_t features() const noexcept override;
  std::span<const std::uint16_t> queueSizes() const noexcept override;
  // One for changes of the configuration and one for all queues: an answer and that its question was taken are then one
  // interrupt.
  unsigned interruptVectors() const noexcept override { return 2; }
  void readConfig(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override;
  void connect(Interrupts& interrupts) override;
  void activate(Activation activation) noexcept override { thread_->activate(std::move(activation)); }
  void deactivate(std::function<void()> done) noexcept override { thread_->deactivate(std::move(done)); }

 private:
  // 5.10.2
  enum QueueIndex : std::uint16_t { kReceive = 0, kTransmit = 1, kEvent = 2, kQueueCount = 3 };

  class Surroundings final : public Mux::Surroundings {
   public:
    explicit Surroundings(Vsock& device) noexcept : device_(device) {}
    void watch(int descriptor, io::EventThread::Source& source) noexcept override;
    void watchRoom(int descriptor, bool isWatched, io::EventThread::Source& source) noexcept override;
    void unwatch(int descriptor, const io::EventThread::Source& source) noexcept override;
    void arm(Clock::time_point time) noexcept override;
    bool askHost(const Ticket& ticket, std::uint32_t port) noexcept override;
    [[gnu::hot]] void socketsChanged() noexcept override { device_.pumpReceive(); }

   private:
    Vsock& device_;
  };
  class Wake final : public io::EventThread::Source {
   public:
    Wake(Vsock& device, void (Vsock::*work)() noexcept) noexcept : device_(device), work_(work) {}
    [[gnu::hot]] void ready(std::uint32_t) noexcept override { (device_.*work_)(); }

   private:
    Vsock& device_;
    void (Vsock::*work_)() noexcept;
  };
  struct Arrival {
    Fd socket;
    std::uint32_t port = 0;        // of a client of the host
    std::optional<Ticket> ticket;  // or of an answer to this
  };
  // What the control thread has for this one, beside drivers. Taken whole.
  struct Inbox {
    std::vector<Arrival> arrivals;
    bool transportReset = false;
  };

  // On the control thread.
  Fd place(Fd socket);  // at a number that is ours
  void plugHoles();
  template <typename Put>
  void post(Put put) noexcept;

  // All below on the device's thread.
  void takeInbox() noexcept;
  void start(Activation activation) noexcept override;
  bool stop() noexcept override;
  void broken(const char* reason) noexcept;
  bool isActive() const noexcept { return queues_.size() == kQueueCount; }
  [[gnu::hot]] ActiveQueue* queue(QueueIndex index) noexcept;
  [[gnu::hot]] void pump() noexcept;  // both ways, as far as one turn allows
  [[gnu::hot]] void pumpTransmit() noexcept;
  void showTransmitted() noexcept;
  void startUsedTimer(std::chrono::milliseconds delay) noexcept;
  void usedTimerRan() noexcept;
  [[gnu::hot]] void signalReceive() noexcept;
  [[gnu::hot]] void pumpReceive() noexcept;
  [[gnu::hot]] bool fetchBuffers() noexcept;
  [[gnu::hot]] void handlePacket() noexcept;
  void sendEvent() noexcept;
  void interrupt(ActiveQueue& queue) noexcept;
  void expire() noexcept;
  void goOnLater() noexcept;

  static constexpr std::size_t kBuffersAtOnce = 16;

  const Options options_;
  HostConnector& connector_;
  Fd timer_;
  Fd usedTimer_;
  Interrupts* interrupts_ = nullptr;
  std::atomic<std::size_t> connectionCount_ = 0;
  std::vector<Fd> plugs_;  // of the control thread

  std::mutex mutex_;
  Inbox inbox_;
  io::CallJob inboxFilled_;  // a job, so that it keeps its place behind a driver that came before

  std::vector<std::optional<ActiveQueue>> queues_;  // none while it is not active
  Surroundings surroundings_;
  Mux mux_;
  Wake receiveWake_;
  Wake transmitWake_;
  Wake eventWake_;
  Wake timerWake_;
  Wake usedTimerWake_;
  std::size_t unseen_ = 0;  // pieces of packets of the guest that are used, which it has not seen
  bool usedTimerRuns_ = false;
  bool hasShown_ = false;        // since the timer was started
  Chain packet_;                 // of the guest
  std::vector<Chain> chains_;    // for the guest: [firstFetched_, fetched_) are from the queue
  std::vector<Buffer> buffers_;  // the same, for the mux
  std::size_t firstFetched_ = 0;
  std::size_t fetched_ = 0;
  bool eventWaits_ = false;
  bool goesOn_ = false;
  std::unique_ptr<DeviceThread> thread_;  // from connect() on; ends first
};

}  // namespace vmmhost::kvm::virtio::vsock
