#include "ipc/sdk/host_services.h"

#include <utility>

#include "ipc/rpc/connection.h"

namespace vmmhost::worker {

kj::Promise<Fd> HostServices::connectVsock(std::uint32_t port) {
  if (!vsock_) {
    return rpc::fail<Fd>(Error(ErrorCode::kUnsupported, "the host connects no vsock for this VM"));
  }
  if (asked_ >= kAtOnce && waiting_.size() >= kMaxWaiting) {
    return rpc::fail<Fd>(
        Error(ErrorCode::kResourceExhausted, "the guest connects faster than the host does", {}, true));
  }
  auto pair = kj::newPromiseAndFulfiller<Fd>();
  waiting_.push_back({port, kj::mv(pair.fulfiller)});
  askNext();
  return kj::mv(pair.promise);
}

void HostServices::askNext() {
  while (asked_ < kAtOnce && !waiting_.empty()) {
    Question question = kj::mv(waiting_.front());
    waiting_.pop_front();
    if (!question.answer->isWaiting()) {
      continue;  // given up meanwhile
    }
    ++asked_;
    auto request = vsock_->connectRequest();
    request.setPort(question.port);
    auto answer = std::make_shared<kj::Own<kj::PromiseFulfiller<Fd>>>(kj::mv(question.answer));
    asking_.add(request.send()
                    .then(rpc::guarded([](auto&& response) {
                      rpc::throwIfError(response);
                      return rpc::receiveDescriptor(response.getSocket());
                    }))
                    .then([answer](Fd socket) { (*answer)->fulfill(std::move(socket)); },
                          [answer](kj::Exception&& exception) { (*answer)->reject(kj::mv(exception)); })
                    .then([this]() {
                      --asked_;
                      askNext();
                    }));
  }
}

}  // namespace vmmhost::worker
