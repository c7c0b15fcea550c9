#include "worker-kvm/virtio/vsock/link.h"

#include <utility>

namespace vmmhost::kvm::virtio::vsock {

Link::Link(kj::UnixEventPort& port, worker::Services& services)
    : services_(services),
      observer_(port, wake_.descriptor(), kj::UnixEventPort::FdObserver::OBSERVE_READ),
      asked_(*this) {
  task_ = watch().eagerlyEvaluate(nullptr);
}

Link::~Link() noexcept = default;

kj::Promise<void> Link::connectToGuest(std::uint32_t port, Fd socket) {
  try {
    device_->connectToGuest(std::move(socket), port);
  } catch (const Error& error) {
    return worker::fail(error);
  }
  return kj::READY_NOW;
}

bool Link::ask(const Ticket& ticket, std::uint32_t port) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (questions_.size() >= kMaxQuestions) {
      return false;
    }
    questions_.push_back({ticket, port});
  }
  wake_.signal();
  return true;
}

kj::Promise<void> Link::watch() {
  // Asked for before the eventfd is read: an edge that comes in between is then not lost.
  auto readable = observer_.whenBecomesReadable();
  wake_.drain();
  std::vector<Question> questions;
  {
    const std::lock_guard lock(mutex_);
    questions.swap(questions_);
  }
  for (const Question& question : questions) {
    askHost(question);
  }
  return readable.then([this]() { return watch(); });
}

void Link::askHost(const Question& question) {
  asked_.add(
      services_.connectVsock(question.port)
          .then([this, ticket = question.ticket](Fd socket) { device_->hostAnswered(ticket, std::move(socket)); },
                [this, ticket = question.ticket](kj::Exception&&) { device_->hostAnswered(ticket, Fd()); }));
}

}  // namespace vmmhost::kvm::virtio::vsock
