#include "host/vm/memory_meter.h"

#include <iterator>
#include <system_error>

#include "host/vm/memory_usage.h"

namespace vmmhost::vm {

MemoryMeter::~MemoryMeter() {
  for (const Job& job : jobs_) {
    job.isUnwanted->store(true);
  }
  for (Job& job : jobs_) {
    job.thread.join();
  }
}

kj::Promise<std::uint64_t> MemoryMeter::measure(pid_t pid, std::uint64_t guestMemoryBytes,
                                                std::chrono::milliseconds limit) {
  const auto job = jobs_.emplace(jobs_.end());
  auto paf = kj::newPromiseAndFulfiller<std::uint64_t>();
  job->done = kj::mv(paf.fulfiller);
  const auto isUnwanted = job->isUnwanted;
  try {
    job->thread = std::thread([this, job, isUnwanted, guestMemoryBytes, limit, process = openProcess(pid)]() {
      const auto end = std::chrono::steady_clock::now() + limit;
      const std::uint64_t bytes = privateBytesOutsideGuest(
          process, guestMemoryBytes, [&]() { return isUnwanted->load() || std::chrono::steady_clock::now() > end; });
      mailbox_.post([this, job, bytes]() {
        job->thread.join();
        auto done = kj::mv(job->done);
        jobs_.erase(job);
        done->fulfill(std::uint64_t{bytes});
      });
    });
  } catch (const std::system_error&) {
    jobs_.erase(job);
    return std::uint64_t{0};
  }
  return paf.promise.attach(kj::defer([isUnwanted]() { isUnwanted->store(true); }));
}

}  // namespace vmmhost::vm
