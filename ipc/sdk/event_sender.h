// The worker's events on their way to the host.
#pragma once

#include <kj/async.h>
#include <kj/function.h>

#include <deque>

#include "vmmhost/worker/worker.h"

namespace vmmhost::worker {

// Sends in order and one at a time, as fast as the stream's flow control lets it: a host cuts off a peer that has too
// many calls open. What a guest makes happen faster than the host takes it is dropped beyond kMaxWaiting, and logged;
// the end is never dropped. Lives on the event loop's thread.
class EventSender final : public Events {
 public:
  static constexpr std::size_t kMaxWaiting = 256;

  // `services` outlives it.
  EventSender(schema::EventSink::Client sink, kj::UnixEventPort& port, Services& services)
      : sink_(kj::mv(sink)), mailbox_(port), services_(services) {}
  ~EventSender() noexcept override {}

  void ended(schema::EndCause cause, std::string detail) override;
  void resetDone() override;
  void guestPanicked(std::string detail) override;
  void bootPhase(std::uint8_t value, std::uint64_t monotonicNs) override;
  void diskFull(std::uint32_t index) override;
  Mailbox::Sender sender() const override { return mailbox_.sender(); }
  Services& services() override { return services_; }

 private:
  using Fill = kj::Function<void(schema::Event::Builder)>;
  void offer(Fill fill);
  void push(Fill fill);
  kj::Promise<void> sendNext();

  schema::EventSink::Client sink_;
  Mailbox mailbox_;
  Services& services_;
  std::deque<Fill> waiting_;
  kj::Promise<void> sending_ = nullptr;
  bool isSending_ = false;
  bool hasEnded_ = false;
  std::uint64_t dropped_ = 0;
};

}  // namespace vmmhost::worker
