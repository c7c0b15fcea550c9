#include "worker-kvm/virtio/net/control_queue.h"

#include <utility>

namespace vmmhost::kvm::virtio::net {

void ControlQueue::start(ActiveQueue queue, std::uint64_t features) {
  queue_ = std::move(queue);
  features_ = features;
  isWaiting_ = false;
  if (!request_) {
    request_ = std::make_unique_for_overwrite<std::uint8_t[]>(kMaxControlBytes);
  }
}

ControlQueue::Turn ControlQueue::serve() noexcept {
  Queue& queue = queue_->queue;
  for (unsigned commands = 0; commands < kCommandsPerTurn && !isWaiting_; ++commands) {
    switch (queue.fetch(chain_)) {
      case Queue::Fetched::kBroken:
        return Turn::kBroken;
      case Queue::Fetched::kNone:
        if (queue.enableNotifications()) {
          continue;
        }
        return Turn::kIdle;
      case Queue::Fetched::kChain:
        break;
    }
    const Target::Result result = handle();
    if (result == Target::Result::kLater) {
      isWaiting_ = true;
    } else {
      acknowledge(result == Target::Result::kDone);
    }
  }
  return isWaiting_ ? Turn::kIdle : Turn::kMore;
}

ControlQueue::Turn ControlQueue::carriedOut() noexcept {
  if (std::exchange(isWaiting_, false)) {
    acknowledge(true);
  }
  return serve();
}

ControlQueue::Target::Result ControlQueue::handle() noexcept {
  if (chain_.readableBytes > kMaxControlBytes) {
    return Target::Result::kFailed;
  }
  const std::size_t bytes = copyFrom(chain_.readable, 0, {request_.get(), kMaxControlBytes});
  const Command command = parseCommand({request_.get(), bytes}, features_, maxPairs_);
  switch (command.kind) {
    case Command::Kind::kRefused:
      return Target::Result::kFailed;
    case Command::Kind::kAccepted:
      return Target::Result::kDone;
    default:
      return target_.carryOut(command);
  }
}

void ControlQueue::acknowledge(bool isDone) noexcept {
  const std::uint8_t ack = isDone ? kControlOk : kControlError;
  const std::size_t written = copyTo(chain_.writable, 0, {&ack, 1});
  queue_->queue.publishUsed(chain_.head, static_cast<std::uint32_t>(written));
  if (queue_->queue.needsInterrupt()) {
    interrupts_.queueUsed(queue_->index);
  }
}

}  // namespace vmmhost::kvm::virtio::net
