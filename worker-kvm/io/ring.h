// A ring of io_uring on one file: operations are prepared one by one, handed to the kernel together, and told about in
// any order.
//
// The process cannot make rings (vmmhost/rings.h says why); it maps one that it was started with.
#pragma once

#include <liburing.h>
#include <sys/uio.h>

#include <cstdint>
#include <span>

#include "vmmhost/rings.h"
#include "worker-kvm/confine/rules.h"

namespace vmmhost::kvm::io {

class Ring {
 public:
  static constexpr unsigned kEntries = rings::kEntries;

  // Registers `file` with the ring: all that it reads and writes from then on. While the process is created only: the
  // filters of its threads do not allow this. Throws Error.
  Ring(rings::Ring ring, int file);
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // From one thread at a time. At most kEntries operations may be under way. `segments` are read before submit returns;
  // the memory that they lead to has to stay until the completion. Offsets are bytes of the file.
  void read(std::span<const iovec> segments, std::uint64_t offset, std::uint64_t tag) noexcept;
  // durable: the data reaches the disk before the completion.
  void write(std::span<const iovec> segments, std::uint64_t offset, bool durable, std::uint64_t tag) noexcept;
  // Data of the file, and of its metadata what finding them takes.
  void syncData(std::uint64_t tag) noexcept;

  // Hands over what was prepared, with one system call. False: the kernel has no memory for it now; call it again.
  bool submit() noexcept;

  // Calls completed(tag, result) for what is done: bytes, or a negative errno value.
  template <typename Completed>
  void reap(Completed completed) noexcept {
    unsigned head = 0;
    unsigned count = 0;
    io_uring_cqe* entry = nullptr;
    io_uring_for_each_cqe(&ring_, head, entry) {
      completed(entry->user_data, entry->res);
      ++count;
    }
    io_uring_cq_advance(&ring_, count);
  }

  // Readable while something can be reaped.
  int descriptor() const noexcept { return ring_.ring_fd; }
  // What a thread that submits and reaps needs.
  confine::Rules rules() const;

 private:
  io_uring_sqe& prepare(unsigned operation, std::uint64_t tag) noexcept;

  io_uring ring_{};
};

}  // namespace vmmhost::kvm::io
