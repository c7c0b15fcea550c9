#include "worker-kvm/io/ring.h"

#include <asm/unistd.h>
#include <linux/fs.h>

#include <cassert>
#include <cerrno>
#include <cstring>

#include "vmmhost/error.h"

namespace vmmhost::kvm::io {

Ring::Ring(rings::Ring ring, int file) {
  io_uring_params geometry;
  static_assert(sizeof geometry == sizeof ring.geometry);
  std::memcpy(&geometry, ring.geometry.data(), sizeof geometry);
  if (const int error = io_uring_queue_mmap(ring.descriptor.get(), &geometry, &ring_); error != 0) {
    throw systemError("mapping a ring", -error);
  }
  ring.descriptor.release();  // io_uring_queue_exit closes it
  // Entries are handed over in the order of their slots.
  for (unsigned slot = 0; slot < geometry.sq_entries; ++slot) {
    ring_.sq.array[slot] = slot;
  }
  if (const int count = io_uring_register_files_update(&ring_, 0, &file, 1); count != 1) {
    io_uring_queue_exit(&ring_);
    throw systemError("registering a file with a ring", -count);
  }
}

Ring::~Ring() {
  io_uring_queue_exit(&ring_);
}

io_uring_sqe& Ring::prepare(unsigned operation, std::uint64_t tag) noexcept {
  io_uring_sqe* entry = io_uring_get_sqe(&ring_);
  assert(entry != nullptr);  // more under way than allowed
  io_uring_prep_rw(static_cast<int>(operation), entry, 0, nullptr, 0, 0);
  entry->flags = IOSQE_FIXED_FILE;  // of slot 0
  entry->user_data = tag;
  return *entry;
}

void Ring::read(std::span<const iovec> segments, std::uint64_t offset, std::uint64_t tag) noexcept {
  io_uring_sqe& entry = prepare(IORING_OP_READV, tag);
  entry.addr = reinterpret_cast<std::uint64_t>(segments.data());
  entry.len = static_cast<std::uint32_t>(segments.size());
  entry.off = offset;
}

void Ring::write(std::span<const iovec> segments, std::uint64_t offset, bool durable, std::uint64_t tag) noexcept {
  io_uring_sqe& entry = prepare(IORING_OP_WRITEV, tag);
  entry.addr = reinterpret_cast<std::uint64_t>(segments.data());
  entry.len = static_cast<std::uint32_t>(segments.size());
  entry.off = offset;
  entry.rw_flags = durable ? RWF_DSYNC : 0;
}

void Ring::syncData(std::uint64_t tag) noexcept {
  prepare(IORING_OP_FSYNC, tag).fsync_flags = IORING_FSYNC_DATASYNC;
}

bool Ring::submit() noexcept {
  // An entry that the kernel finds invalid ends a call on kernels before 5.18; those behind it take another.
  while (io_uring_sq_ready(&ring_) != 0) {
    const int submitted = io_uring_submit(&ring_);
    if (submitted <= 0 && submitted != -EINTR) {
      return false;  // EAGAIN, EBUSY
    }
  }
  return true;
}

confine::Rules Ring::rules() const {
  constexpr std::uint64_t k32Bits = 0xffffffff;
  return {{__NR_io_uring_enter,
           {{0, k32Bits, static_cast<std::uint32_t>(ring_.ring_fd)},
            {3, k32Bits & ~std::uint64_t{IORING_ENTER_GETEVENTS}, 0},
            {4, ~std::uint64_t{0}, 0}}}};
}

}  // namespace vmmhost::kvm::io
