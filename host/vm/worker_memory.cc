#include "host/vm/worker_memory.h"

namespace vmmhost::vm {
namespace {

constexpr auto kHardlyOld = 500 * kj::MILLISECONDS;

}  // namespace

kj::Promise<std::uint64_t> WorkerMemory::measure(pid_t worker, std::chrono::milliseconds limit) {
  if (!isUnderWay_ && last_ && timer_.now() - last_->first < kHardlyOld) {
    return std::uint64_t{last_->second};
  }
  if (!isUnderWay_) {
    isUnderWay_ = true;
    auto givenUp = kj::newPromiseAndFulfiller<std::uint64_t>();
    givenUp_ = kj::mv(givenUp.fulfiller);
    underWay_ = meter_.measure(worker, guestMemoryBytes_, limit)
                    .exclusiveJoin(kj::mv(givenUp.promise))
                    .then([this](std::uint64_t bytes) {
                      isUnderWay_ = false;
                      last_ = {timer_.now(), bytes};
                      return bytes;
                    })
                    .fork();
  }
  return underWay_.addBranch().exclusiveJoin(
      timer_.afterDelay(limit.count() * kj::MILLISECONDS).then([]() { return std::uint64_t{0}; }));
}

void WorkerMemory::giveUp() {
  if (givenUp_.get() != nullptr) {
    givenUp_->fulfill(std::uint64_t{0});
  }
}

}  // namespace vmmhost::vm
