// The consoles of one VM, by their index in its configuration: 0 is there always.
#pragma once

#include <kj/async-io.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "host/vm/console.h"
#include "host/vm/life.h"
#include "vmmhost/error.h"
#include "vmmhost/fd.h"

namespace vmmhost::vm {

class Consoles {
 public:
  // Where a console's output is kept: asked once for each; may be null, and may answer null.
  using FileOf = std::function<std::unique_ptr<RotatingFile>(std::uint32_t port)>;

  // Both outlive it.
  Consoles(kj::AsyncIoContext& io, const Life& life);

  // Makes them; the ends for the worker, in order. Once.
  std::vector<Fd> make(std::uint32_t count, const FileOf& fileOf);
  // Fulfilled when they are there, which is before guest code runs; rejected if they never will be.
  kj::Promise<void> onReady() { return ready_.addBranch(); }
  // They never will be; of no effect where they are there.
  void giveUp();

  // See Console::attach. Throws kFailedPrecondition where there are none, kNotFound for a port that there is not.
  Fd attach(std::uint32_t port, std::uint32_t replayBytes, bool input);
  void require(std::uint32_t port) const;  // throws as attach

  // The worker is gone: see Console::finish.
  kj::Promise<void> finish(kj::Duration limit);
  void clear() { consoles_.clear(); }

 private:
  kj::AsyncIoContext& io_;
  const Life& life_;
  std::vector<std::unique_ptr<Console>> consoles_;
  kj::Own<kj::PromiseFulfiller<void>> readyFulfiller_;
  kj::ForkedPromise<void> ready_ = nullptr;
};

}  // namespace vmmhost::vm
