// Measures what processes use, beside the event loop.
#pragma once

#include <kj/async-io.h>
#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <list>
#include <memory>
#include <thread>

#include "vmmhost/mailbox.h"

namespace vmmhost::vm {

class MemoryMeter {
 public:
  explicit MemoryMeter(kj::UnixEventPort& port) : mailbox_(port) {}
  // Gives up what is under way, and waits for the kernel to come to the end of the mappings that it looks at.
  ~MemoryMeter();
  MemoryMeter(const MemoryMeter&) = delete;
  MemoryMeter& operator=(const MemoryMeter&) = delete;

  // privateBytesOutsideGuest() on a thread of its own, given up after `limit` and when nobody wants the promise any
  // more. Fulfilled once the thread has ended, which may be later than that: who cannot wait for it joins the promise
  // with a timer, and asks for nothing further of that process meanwhile. 0: not measured.
  // While the kernel reads for it, the memory of a process that has been ended stays: whoever ends a process gives its
  // measurement up, so that this lasts no longer than the read that is under way.
  kj::Promise<std::uint64_t> measure(pid_t pid, std::uint64_t guestMemoryBytes, std::chrono::milliseconds limit);

 private:
  struct Job {
    std::shared_ptr<std::atomic<bool>> isUnwanted = std::make_shared<std::atomic<bool>>(false);
    kj::Own<kj::PromiseFulfiller<std::uint64_t>> done;
    std::thread thread;
  };

  Mailbox mailbox_;
  std::list<Job> jobs_;
};

}  // namespace vmmhost::vm
