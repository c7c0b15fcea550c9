#include "host/vm/consoles.h"

#include <kj/vector.h>

#include <string>
#include <utility>

#include "ipc/rpc/connection.h"

namespace vmmhost::vm {

Consoles::Consoles(kj::AsyncIoContext& io, const Life& life) : io_(io), life_(life) {
  auto paf = kj::newPromiseAndFulfiller<void>();
  readyFulfiller_ = kj::mv(paf.fulfiller);
  ready_ = paf.promise.fork();
}

std::vector<Fd> Consoles::make(std::uint32_t count, const FileOf& fileOf) {
  std::vector<Fd> remotes;
  for (std::uint32_t port = 0; port < count; ++port) {
    // A guest that talks faster than it is heard must not hang a device thread for ever.
    rpc::SocketPair pair = rpc::makeSocketPair(rpc::RemoteEnd::kNonBlocking);
    remotes.push_back(std::move(pair.remote));
    consoles_.push_back(std::make_unique<Console>(io_, std::move(pair.local), fileOf ? fileOf(port) : nullptr));
  }
  readyFulfiller_->fulfill();
  return remotes;
}

void Consoles::giveUp() {
  readyFulfiller_->reject(rpc::toKj(Error(ErrorCode::kFailedPrecondition, "the VM ended before it had a console")));
}

void Consoles::require(std::uint32_t port) const {
  if (consoles_.empty()) {
    throw Error(ErrorCode::kFailedPrecondition,
                std::string("the VM is ") + life_.stateName() + ": its console is not there");
  }
  if (port >= consoles_.size()) {
    throw Error(ErrorCode::kNotFound, "the VM has no console " + std::to_string(port) + ": it has " +
                                          std::to_string(consoles_.size()) + ", from 0 on");
  }
}

Fd Consoles::attach(std::uint32_t port, std::uint32_t replayBytes, bool input) {
  require(port);
  return consoles_[port]->attach(replayBytes, input);
}

kj::Promise<void> Consoles::finish(kj::Duration limit) {
  kj::Vector<kj::Promise<void>> finished;
  for (const auto& console : consoles_) {
    finished.add(console->finish(limit));
  }
  return kj::joinPromises(finished.releaseAsArray());
}

}  // namespace vmmhost::vm
