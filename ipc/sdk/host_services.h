// What the host does for a machine, asked for over the worker's connection.
#pragma once

#include <kj/async.h>

#include <cstdint>
#include <deque>
#include <optional>
#include <utility>

#include "vmmhost/worker/worker.h"

namespace vmmhost::worker {

// Asks the host as much at a time as a host bears that cuts off peers with too many calls open; the rest waits, as far
// as there is room. Lives on the event loop's thread.
class HostServices final : public Services, private kj::TaskSet::ErrorHandler {
 public:
  static constexpr std::size_t kAtOnce = 16;
  static constexpr std::size_t kMaxWaiting = 256;

  explicit HostServices(std::optional<schema::VsockHost::Client> vsock) : vsock_(std::move(vsock)), asking_(*this) {}
  ~HostServices() noexcept override {}

  kj::Promise<Fd> connectVsock(std::uint32_t port) override;

 private:
  struct Question {
    std::uint32_t port;
    kj::Own<kj::PromiseFulfiller<Fd>> answer;
  };
  void askNext();
  void taskFailed(kj::Exception&&) override {}  // each puts its failure into its answer

  std::optional<schema::VsockHost::Client> vsock_;
  std::deque<Question> waiting_;
  std::size_t asked_ = 0;
  kj::TaskSet asking_;
};

}  // namespace vmmhost::worker
