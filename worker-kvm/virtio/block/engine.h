// How a queue's thread reads and writes the file: through a ring, or by system calls where the system has none.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "vmmhost/rings.h"
#include "worker-kvm/confine/rules.h"
#include "worker-kvm/virtio/block/disk_file.h"

namespace vmmhost::kvm::virtio::block {

class Engine {
 public:
  enum class Kind : std::uint8_t { kRead, kWrite, kDurableWrite, kSyncData };
  struct Operation {
    Kind kind = Kind::kRead;
    std::span<const iovec> segments;  // stay until the operation is done, as the memory that they lead to
    std::uint64_t offset = 0;         // bytes of the file
    std::uint32_t tag = 0;
  };
  class Client {
   public:
    virtual ~Client() = default;
    // Bytes, or a negative errno value. Not -EINTR, -EAGAIN or -ECANCELED: such an operation was carried out again.
    virtual void completed(std::uint32_t tag, std::int64_t result) noexcept = 0;
  };
  static constexpr unsigned kMaxUnderWay = rings::kEntries;

  virtual ~Engine() = default;
  // From one thread. The result, if it is there at once; otherwise reap tells it.
  virtual std::optional<std::int64_t> start(const Operation& operation) noexcept = 0;
  // Hands over what was started. False: the kernel has no memory for it now; call it again.
  virtual bool submit() noexcept = 0;
  // Tells what is done. It may start more.
  virtual void reap(Client& client) noexcept = 0;
  virtual int descriptor() const noexcept = 0;  // readable while there is something to reap; -1: there never is
  virtual confine::Rules rules() const = 0;
};

// With a ring, if there is one. `file` outlives it. Throws Error.
std::unique_ptr<Engine> makeEngine(const DiskFile& file, rings::Ring ring);

}  // namespace vmmhost::kvm::virtio::block
