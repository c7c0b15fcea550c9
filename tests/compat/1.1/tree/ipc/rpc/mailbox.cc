#include "vmmhost/mailbox.h"

#include <sys/eventfd.h>

#include <cerrno>

#include "vmmhost/error.h"

namespace vmmhost {

struct Mailbox::Sender::Queue {
  std::mutex mutex;
  std::vector<std::function<void()>> items;
  bool open = true;
  Fd event;
};

void Mailbox::Sender::post(std::function<void()> work) const {
  std::lock_guard lock(queue_->mutex);
  if (!queue_->open) {
    return;
  }
  queue_->items.push_back(std::move(work));
  if (queue_->items.size() == 1) {
    const std::uint64_t one = 1;
    // Cannot fail: the counter is read before it could overflow. Under the lock, so that the descriptor lives.
    [[maybe_unused]] const auto written = ::write(queue_->event.get(), &one, sizeof(one));
  }
}

std::shared_ptr<Mailbox::Sender::Queue> Mailbox::makeQueue() {
  auto queue = std::make_shared<Sender::Queue>();
  queue->event.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!queue->event) {
    throw systemError("making an eventfd", errno);
  }
  return queue;
}

Mailbox::Mailbox(kj::UnixEventPort& port)
    : queue_(makeQueue()),
      observer_(port, queue_->event.get(), kj::UnixEventPort::FdObserver::OBSERVE_READ),
      task_(drain().eagerlyEvaluate(nullptr)) {
}

Mailbox::~Mailbox() {
  std::lock_guard lock(queue_->mutex);
  queue_->open = false;
  queue_->items.clear();
}

void Mailbox::post(std::function<void()> work) {
  sender().post(std::move(work));
}

kj::Promise<void> Mailbox::drain() {
  // Asked for before the counter is read: an edge that comes in between is then not lost.
  auto readable = observer_.whenBecomesReadable();
  std::vector<std::function<void()>> items;
  {
    std::lock_guard lock(queue_->mutex);
    std::uint64_t count;
    [[maybe_unused]] const auto got = ::read(queue_->event.get(), &count, sizeof(count));
    items.swap(queue_->items);
  }
  for (auto& item : items) {
    item();
  }
  return readable.then([this]() { return drain(); });
}

}  // namespace vmmhost
