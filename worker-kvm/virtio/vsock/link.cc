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

bool Link::ask(Vsock& device, const Ticket& ticket, std::uint32_t port) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (questions_.size() >= kMaxQuestions) {
      return false;
    }
    questions_.push_back({&device, ticket, port});
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
  asked_.add(services_.connectVsock(question.port)
                 .then([question](Fd socket) { question.device->hostAnswered(question.ticket, std::move(socket)); },
                       [question](kj::Exception&&) { question.device->hostAnswered(question.ticket, Fd()); }));
}

}  // namespace vmmhost::kvm::virtio::vsock
