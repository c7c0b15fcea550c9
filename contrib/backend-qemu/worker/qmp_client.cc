#include "worker/qmp_client.h"

#include <utility>

#include "vmmhost/worker/worker.h"
#include "worker/deadline.h"

namespace qemubackend {

using vmmhost::Error;
using vmmhost::ErrorCode;

QmpClient::QmpClient(kj::AsyncIoContext& io, vmmhost::Fd socket, std::function<void(const QmpMessage&)> onEvent)
    : timer_(io.provider->getTimer()),
      stream_(io.lowLevelProvider->wrapSocketFd(socket.release(), kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP |
                                                                      kj::LowLevelAsyncIoProvider::ALREADY_CLOEXEC |
                                                                      kj::LowLevelAsyncIoProvider::ALREADY_NONBLOCK)),
      onEvent_(std::move(onEvent)) {
}

kj::Promise<std::string> QmpClient::run() {
  return readLoop().then(
      [this](std::string violation) {
        close(violation.empty() ? Error(ErrorCode::kWorkerDied, "QEMU has ended")
                                : Error(ErrorCode::kProtocol, violation));
        return violation;
      },
      [this](kj::Exception&&) {  // a reset connection is an end like any other
        close(Error(ErrorCode::kWorkerDied, "QEMU has ended"));
        return std::string();
      });
}

kj::Promise<std::string> QmpClient::readLoop() {
  return stream_->tryRead(buffer_, 1, sizeof(buffer_)).then([this](std::size_t count) -> kj::Promise<std::string> {
    if (count == 0) {
      return std::string();
    }
    try {
      lines_.feed({buffer_, count});
      while (auto line = lines_.next()) {
        handle(parseQmpMessage(*line));
      }
    } catch (const Error& error) {
      return error.message();
    }
    return readLoop();
  });
}

void QmpClient::handle(QmpMessage message) {
  if (message.kind == QmpMessage::Kind::kGreeting) {
    if (std::exchange(greeted_, true)) {
      throw Error(ErrorCode::kProtocol, "QMP: a second greeting");
    }
    greeting_.fulfiller->fulfill();
    return;
  }
  if (!greeted_) {
    throw Error(ErrorCode::kProtocol, "QMP: a message before the greeting");
  }
  if (message.kind == QmpMessage::Kind::kEvent) {
    onEvent_(message);
    return;
  }
  const auto found = pending_.find(message.id);
  if (found == pending_.end()) {
    throw Error(ErrorCode::kProtocol, "QMP: a reply to a command that was not sent, id " + std::to_string(message.id));
  }
  auto fulfiller = kj::mv(found->second);
  pending_.erase(found);
  if (message.kind == QmpMessage::Kind::kError) {
    fulfiller->reject(
        vmmhost::worker::toKj(Error(ErrorCode::kFailedPrecondition, "QEMU refused: " + message.description)));
  } else {
    fulfiller->fulfill(kj::mv(message));
  }
}

void QmpClient::close(const Error& why) {
  closed_ = why;
  greeting_.fulfiller->reject(vmmhost::worker::toKj(why));
  for (auto& [id, fulfiller] : std::exchange(pending_, {})) {
    fulfiller->reject(vmmhost::worker::toKj(why));
  }
}

kj::Promise<void> QmpClient::handshake(std::chrono::milliseconds limit) {
  return withDeadline<void>(timer_, limit, "at all", kj::mv(greeting_.promise)).then([this]() {
    return execute("qmp_capabilities").ignoreResult();
  });
}

kj::Promise<QmpMessage> QmpClient::execute(std::string_view command, std::string_view arguments,
                                           std::chrono::milliseconds limit) {
  if (closed_) {
    return vmmhost::worker::fail<QmpMessage>(*closed_);
  }
  // Commands that timed out stay until QEMU answers them, so that a late reply is known; their number is bounded.
  if (pending_.size() >= kMaxPending) {
    return vmmhost::worker::fail<QmpMessage>(
        Error(ErrorCode::kResourceExhausted, "too many commands that QEMU has not answered", {}, true));
  }
  const std::uint64_t id = nextId_++;
  auto reply = kj::newPromiseAndFulfiller<QmpMessage>();
  pending_.emplace(id, kj::mv(reply.fulfiller));

  auto line = kj::heap<std::string>(formatQmpCommand(id, command, arguments));
  writes_ = writes_
                .then([this, line = kj::mv(line)]() mutable {
                  const auto data = line->data();
                  const auto size = line->size();
                  return stream_->write(data, size).attach(kj::mv(line));
                })
                .eagerlyEvaluate([](kj::Exception&&) {});  // run() sees the end of the connection too
  return withDeadline<QmpMessage>(timer_, limit, std::string(command), kj::mv(reply.promise));
}

}  // namespace qemubackend
