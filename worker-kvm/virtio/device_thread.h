// How a driver is handed over to the thread that serves it, and taken back.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "worker-kvm/confine/rules.h"
#include "worker-kvm/io/event_thread.h"
#include "worker-kvm/virtio/device.h"

namespace vmmhost::kvm::virtio {

// One for each thread of a device; a device of several gives each its part of the driver's queues. Belongs to the
// device, as a member behind all that its thread uses: it ends first.
class DeviceThread final : private io::EventThread::Job {
 public:
  // What the device does on the thread; throws nothing. start() and stop() come in turn.
  class Server {
   public:
    virtual ~Server() = default;
    // A driver is there. The queues are the server's from now on, and nothing has been fetched from them.
    virtual void start(Activation activation) noexcept = 0;
    // The driver is gone: forget its queues. True: nothing touches guest memory any more. False: what is under way
    // still does; stopped() is to be called once it is done.
    virtual bool stop() noexcept = 0;
  };

  // With a thread of its own, which runs when this returns: EventThread says what `name` and `rules` are. Throws Error.
  DeviceThread(Server& server, std::string name, confine::Rules rules);
  // On a thread that others may share, and that outlives this.
  DeviceThread(Server& server, io::EventThread& thread);
  ~DeviceThread() override;  // end()
  DeviceThread(const DeviceThread&) = delete;
  DeviceThread& operator=(const DeviceThread&) = delete;

  // By the control thread, as of virtio::Device: a driver at a time. Neither waits. A driver that goes before the
  // thread came to it is not begun. `done` is called once, on the thread, after the last touch of guest memory and also
  // for such a driver; another one may be there before it returns.
  void activate(Activation activation) noexcept;
  void deactivate(std::function<void()> done) noexcept;

  // By the control thread: takes leave of the driver, if one is there, and waits until nothing of the server's runs or
  // is posted any more, or will be by itself. Idempotent; nothing is activated any more. Where the thread has not
  // started there is nothing to wait for.
  void end() noexcept;
  // The first half of it, without the wait: so that several threads end at a time.
  void beginEnd() noexcept;

  // On the thread: what stop() was false for is done.
  void stopped() noexcept;

  // For what the server watches and posts. What is posted keeps its order with activate() and deactivate() where it is
  // a job.
  io::EventThread& events() noexcept { return thread_; }
  // Where activate and deactivate are signalled, for the filters of threads that call them.
  int wakeDescriptor() const noexcept { return thread_.wakeDescriptor(); }

 private:
  enum class State : std::uint8_t { kInactive, kActive, kStopping };

  void run() noexcept override;

  Server& server_;

  // What the control thread asks for.
  std::mutex mutex_;
  std::condition_variable inactive_;
  State state_ = State::kInactive;
  std::optional<Activation> activation_;  // until it is handed over
  std::function<void()> done_;

  // Of the thread.
  bool isStarted_ = false;
  bool isStopping_ = false;  // from stop() on

  std::unique_ptr<io::EventThread> own_;  // ends before the above
  io::EventThread& thread_;
};

// To be called `times` times, from any threads: the last one calls `done`.
std::function<void()> afterCalls(std::size_t times, std::function<void()> done);

}  // namespace vmmhost::kvm::virtio
