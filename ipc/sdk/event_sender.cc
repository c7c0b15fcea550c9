#include "ipc/sdk/event_sender.h"

#include <algorithm>
#include <utility>

namespace vmmhost::worker {
namespace {

constexpr std::size_t kMaxDetail = 4096;

}  // namespace

void EventSender::ended(schema::EndCause cause, std::string detail) {
  if (std::exchange(hasEnded_, true)) {
    return;
  }
  if (dropped_ > 0) {
    log(LogLevel::kWarning, std::to_string(dropped_) + " events came faster than the host took them, and were dropped");
  }
  detail.resize(std::min(detail.size(), kMaxDetail));
  push([cause, detail = std::move(detail)](schema::Event::Builder event) {
    auto out = event.initEnded();
    out.setCause(cause);
    out.setDetail(detail);
  });
}

void EventSender::resetDone() {
  offer([](schema::Event::Builder event) { event.setResetDone(); });
}

void EventSender::guestPanicked(std::string detail) {
  detail.resize(std::min(detail.size(), kMaxDetail));
  offer([detail = std::move(detail)](schema::Event::Builder event) { event.setGuestPanicked(detail); });
}

void EventSender::bootPhase(std::uint8_t value, std::uint64_t monotonicNs) {
  offer([value, monotonicNs](schema::Event::Builder event) {
    auto out = event.initBootPhase();
    out.setValue(value);
    out.setMonotonicNs(monotonicNs);
  });
}

void EventSender::diskFull(std::uint32_t index) {
  offer([index](schema::Event::Builder event) { event.setDiskFull(index); });
}

void EventSender::offer(Fill fill) {
  if (hasEnded_) {
    return;
  }
  if (waiting_.size() >= kMaxWaiting) {
    dropped_ += 1;
    return;
  }
  push(kj::mv(fill));
}

void EventSender::push(Fill fill) {
  waiting_.push_back(kj::mv(fill));
  if (!isSending_) {
    // The first one leaves now, so before whatever its caller sends next.
    isSending_ = true;
    sending_ = sendNext().eagerlyEvaluate([](auto&&) {
      // The host is gone, which ends this worker in any case.
    });
  }
}

kj::Promise<void> EventSender::sendNext() {
  if (waiting_.empty()) {
    isSending_ = false;
    return kj::READY_NOW;
  }
  auto request = sink_.eventRequest();
  waiting_.front()(request.initEvent());
  waiting_.pop_front();
  // Fulfilled when the stream's window has room for another.
  return request.send().then([this]() { return sendNext(); });
}

}  // namespace vmmhost::worker
