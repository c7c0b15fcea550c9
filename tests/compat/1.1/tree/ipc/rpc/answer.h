// Carries a server method out and puts what goes wrong into its result.
#pragma once

#include <kj/async.h>

#include <type_traits>
#include <utility>

#include "ipc/rpc/connection.h"

namespace vmmhost::rpc {

// `func` returns kj::Promise<void> or nothing, and may throw Error. A failure becomes the result's `error` field, so
// that the call itself succeeds and nothing of the error is lost on the wire.
template <typename Context, typename Func>
kj::Promise<void> answer(Context context, Func func) {
  return kj::evalNow([&]() -> kj::Promise<void> {
           if constexpr (std::is_void_v<decltype(func())>) {
             guarded(std::move(func))();
             return kj::READY_NOW;
           } else {
             return guarded(std::move(func))();
           }
         })
      .catch_([context](kj::Exception&& exception) mutable {
        writeError(fromKj(exception), context.getResults().initError());
      });
}

}  // namespace vmmhost::rpc
