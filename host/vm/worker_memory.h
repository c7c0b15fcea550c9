// A worker's private memory, which costs much to tell: its whole address space is gone through, beside the event loop.
#pragma once

#include <kj/async-io.h>
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>

#include "host/vm/memory_meter.h"

namespace vmmhost::vm {

class WorkerMemory {
 public:
  // Both outlive it.
  WorkerMemory(kj::Timer& timer, MemoryMeter& meter, std::uint64_t guestMemoryBytes)
      : timer_(timer), meter_(meter), guestMemoryBytes_(guestMemoryBytes) {}
  WorkerMemory(const WorkerMemory&) = delete;
  WorkerMemory& operator=(const WorkerMemory&) = delete;

  // Bytes besides guest memory; 0: not done with within `limit`. One measurement at a time, which all who ask wait for;
  // one that is hardly old is not repeated.
  kj::Promise<std::uint64_t> measure(pid_t worker, std::chrono::milliseconds limit);
  void forget() { last_.reset(); }  // the next one is to tell what is then
  void giveUp();                    // the process is being ended: what is under way is 0

 private:
  kj::Timer& timer_;
  MemoryMeter& meter_;
  std::uint64_t guestMemoryBytes_;
  std::optional<std::pair<kj::TimePoint, std::uint64_t>> last_;
  bool isUnderWay_ = false;
  kj::Own<kj::PromiseFulfiller<std::uint64_t>> givenUp_;  // null until the first one
  kj::ForkedPromise<std::uint64_t> underWay_ = nullptr;
};

}  // namespace vmmhost::vm
