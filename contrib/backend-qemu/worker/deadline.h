// Limits to how long QEMU may take.
#pragma once

#include <kj/async.h>
#include <kj/timer.h>

#include <chrono>
#include <string>

#include "vmmhost/error.h"
#include "vmmhost/worker/worker.h"

namespace qemubackend {

// Rejects with Error(kDeadlineExceeded) when the promise takes longer. `what` completes "QEMU did not answer ...".
template <typename T>
kj::Promise<T> withDeadline(kj::Timer& timer, std::chrono::milliseconds limit, const std::string& what,
                            kj::Promise<T> promise) {
  return promise.exclusiveJoin(timer.afterDelay(limit.count() * kj::MILLISECONDS).then([limit, what]() {
    return vmmhost::worker::fail<T>(
        vmmhost::Error(vmmhost::ErrorCode::kDeadlineExceeded,
                       "QEMU did not answer " + what + " within " + std::to_string(limit.count()) + " ms"));
  }));
}

}  // namespace qemubackend
