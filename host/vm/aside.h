// Work that takes long, beside the event loop.
#pragma once

#include <kj/async-unix.h>

#include <exception>
#include <functional>
#include <optional>
#include <thread>
#include <utility>

#include "ipc/rpc/connection.h"
#include "vmmhost/error.h"
#include "vmmhost/mailbox.h"

namespace vmmhost::vm {

template <typename Result>
class Aside {
 public:
  Aside(kj::UnixEventPort& port, std::function<Result()> work, std::function<void()> giveUp)
      : mailbox_(port), work_(std::move(work)), giveUp_(std::move(giveUp)) {
    auto paf = kj::newPromiseAndFulfiller<void>();
    done_ = kj::mv(paf.fulfiller);
    promise_ = kj::mv(paf.promise);
    thread_ = std::thread([this]() {
      try {
        result_ = work_();
      } catch (const Error& error) {
        error_ = error;
      } catch (const std::exception& exception) {
        error_ = Error(ErrorCode::kInternal, exception.what());
      }
      mailbox_.post([this]() { done_->fulfill(); });
    });
  }
  ~Aside() {
    if (giveUp_) {
      giveUp_();
    }
    thread_.join();
  }
  Aside(const Aside&) = delete;
  Aside& operator=(const Aside&) = delete;

  kj::Promise<Result> result() {
    return promise_.then(rpc::guarded([this]() -> Result {
      if (error_) {
        throw *error_;
      }
      return std::move(*result_);
    }));
  }

 private:
  Mailbox mailbox_;
  std::function<Result()> work_;
  std::function<void()> giveUp_;
  std::optional<Result> result_;  // both written by the thread before it posts
  std::optional<Error> error_;
  kj::Own<kj::PromiseFulfiller<void>> done_;
  kj::Promise<void> promise_ = nullptr;
  std::thread thread_;
};

// `work` on a thread of its own while the loop goes on; what it returns or throws is the promise's. In place where no
// thread can be had: it is done in any case. Giving the promise up calls `giveUp` and waits for the thread.
template <typename Result>
kj::Promise<Result> runAside(kj::UnixEventPort& port, const std::function<Result()>& work,
                             const std::function<void()>& giveUp = {}) {
  kj::Own<Aside<Result>> aside;
  try {
    aside = kj::heap<Aside<Result>>(port, work, giveUp);
  } catch (const std::exception&) {
    // No thread, or no descriptor to hear of its end by.
  }
  if (aside.get() == nullptr) {
    return kj::evalNow(rpc::guarded([&work]() { return work(); }));
  }
  auto result = aside->result();
  return result.attach(kj::mv(aside));
}

}  // namespace vmmhost::vm
