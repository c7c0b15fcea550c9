// Between a vsock device's thread and the control thread, which can ask the host.
#pragma once

#include <kj/async-io.h>
#include <kj/async-unix.h>

#include <mutex>
#include <vector>

#include "vmmhost/worker/worker.h"
#include "worker-kvm/threads/wake.h"
#include "worker-kvm/virtio/vsock/device.h"

namespace vmmhost::kvm::virtio::vsock {

// Lives on the control thread's event loop, and longer than the devices that ask; from the device's end on, the loop
// does not run until this has ended too.
class Link final : public HostConnector, private kj::TaskSet::ErrorHandler {
 public:
  Link(kj::UnixEventPort& port, worker::Services& services);
  ~Link() noexcept override;

  bool ask(Vsock& device, const Ticket& ticket, std::uint32_t port) noexcept override;
  std::vector<int> descriptors() const override { return {wake_.descriptor()}; }

 private:
  struct Question {
    Vsock* device = nullptr;
    Ticket ticket;
    std::uint32_t port = 0;
  };
  static constexpr std::size_t kMaxQuestions = 1024;

  kj::Promise<void> watch();
  void askHost(const Question& question);
  void taskFailed(kj::Exception&&) override {}  // each tells the device

  worker::Services& services_;
  const threads::Wake wake_;
  std::mutex mutex_;
  std::vector<Question> questions_;  // that the control thread has not seen
  kj::UnixEventPort::FdObserver observer_;
  kj::TaskSet asked_;
  kj::Promise<void> task_ = nullptr;
};

}  // namespace vmmhost::kvm::virtio::vsock
