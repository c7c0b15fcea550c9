// The rings that a worker starts with: what else they could be made to do.
#include "vmmhost/rings.h"

#include <fcntl.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "tests/hostile/attack.h"
#include "tests/hostile/attacks/raw.h"

namespace vmmhost::hostile {
namespace {

constexpr int kRing = rings::kFirstDescriptor;

int registerFile(int ring, int file) {
  io_uring_files_update update{};
  update.fds = reinterpret_cast<std::uint64_t>(&file);
  return raw(__NR_io_uring_register, ring, IORING_REGISTER_FILES_UPDATE, &update, 1);
}

// Maps the first ring and carries one operation out; ENODEV where there is none.
int carryOut(const Loot& loot, const io_uring_sqe& operation, int ring = kRing) {
  rings::Geometry geometry{};
  if (rings::parseArgument(loot.rings, geometry) == 0) {
    return ENODEV;
  }
  io_uring_params parameters;
  std::memcpy(&parameters, geometry.data(), sizeof parameters);
  const std::size_t bytes = std::max<std::size_t>(parameters.sq_off.array + parameters.sq_entries * 4,
                                                  parameters.cq_off.cqes + parameters.cq_entries * 16);
  const auto map = [&](std::size_t length, std::uint64_t offset) {
    void* at = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, kRing, static_cast<off_t>(offset));
    return at == MAP_FAILED ? nullptr : static_cast<char*>(at);
  };
  char* queues = map(bytes, IORING_OFF_SQ_RING);
  char* entries = map(parameters.sq_entries * sizeof operation, IORING_OFF_SQES);
  if (queues == nullptr || entries == nullptr) {
    return errno;
  }
  const auto word = [queues](std::uint32_t offset) { return reinterpret_cast<std::uint32_t*>(queues + offset); };
  std::memcpy(entries, &operation, sizeof operation);
  *word(parameters.sq_off.array) = 0;
  __atomic_fetch_add(word(parameters.sq_off.tail), 1, __ATOMIC_RELEASE);
  if (const int error = raw(__NR_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, nullptr, 0)) {
    return error;
  }
  io_uring_cqe completion;
  const std::uint32_t last = __atomic_load_n(word(parameters.cq_off.tail), __ATOMIC_ACQUIRE) - 1;
  std::memcpy(&completion, queues + parameters.cq_off.cqes + (last & (parameters.cq_entries - 1)) * sizeof completion,
              sizeof completion);
  return completion.res < 0 ? -completion.res : 0;
}

io_uring_sqe operation(std::uint8_t number) {
  io_uring_sqe operation{};
  operation.opcode = number;
  operation.flags = IOSQE_FIXED_FILE;
  return operation;
}

int openRoot(const Loot& loot) {
  io_uring_sqe open = operation(IORING_OP_OPENAT);
  open.flags = 0;
  open.fd = AT_FDCWD;
  open.addr = reinterpret_cast<std::uint64_t>("/");
  return carryOut(loot, open);
}

int makeSocket(const Loot& loot) {
  io_uring_sqe socket = operation(45);  // IORING_OP_SOCKET
  socket.flags = 0;
  socket.fd = 1;
  socket.off = 1;
  return carryOut(loot, socket);
}

int allocate(const Loot& loot) {
  if (const int error = registerFile(kRing, loot.disk)) {
    return error;
  }
  io_uring_sqe allocation = operation(IORING_OP_FALLOCATE);
  allocation.addr = 1 << 20;
  return carryOut(loot, allocation);
}

int setAttribute(const Loot& loot) {
  io_uring_sqe attribute = operation(41);  // IORING_OP_FSETXATTR
  attribute.flags = 0;
  attribute.fd = loot.disk;
  attribute.addr = reinterpret_cast<std::uint64_t>("user.x");
  attribute.addr2 = reinterpret_cast<std::uint64_t>("y");
  attribute.len = 1;
  return carryOut(loot, attribute);
}

int writeToHost(const Loot& loot) {
  static char text[] = "x";
  static iovec segment{text, 1};
  io_uring_sqe write = operation(IORING_OP_WRITEV);
  write.flags = 0;
  write.fd = loot.rpc;
  write.addr = reinterpret_cast<std::uint64_t>(&segment);
  write.len = 1;
  return carryOut(loot, write);
}

// By a byte at `offset`; 0: behind its end.
template <std::uint64_t kOffset>
int growDisk(const Loot& loot) {
  if (const int error = registerFile(kRing, loot.disk)) {
    return error;
  }
  static char text[] = "x";
  static iovec segment{text, 1};
  io_uring_sqe write = operation(IORING_OP_WRITEV);
  write.addr = reinterpret_cast<std::uint64_t>(&segment);
  write.len = 1;
  write.off = kOffset != 0 ? kOffset : static_cast<std::uint64_t>(::lseek(loot.disk, 0, SEEK_END));
  return carryOut(loot, write);
}

int useCopy(const Loot& loot) {
  const long copy = ::syscall(__NR_fcntl, kRing, F_DUPFD_CLOEXEC, 50);
  return carryOut(loot, operation(IORING_OP_FSYNC), static_cast<int>(copy));
}

int lift(const Loot&) {
  io_uring_restriction everything{};
  everything.opcode = IORING_RESTRICTION_SQE_OP;
  everything.sqe_op = IORING_OP_OPENAT;
  return raw(__NR_io_uring_register, kRing, IORING_REGISTER_RESTRICTIONS, &everything, 1);
}

constexpr Outcome kNone = fails(ENODEV);  // no plan of this kind has rings

constexpr Attack kAttacks[] = {
    {"ring-open", openRoot, fails(EACCES), kNone},
    {"ring-socket", makeSocket, fails(EACCES), kNone},
    {"ring-attribute", setAttribute, fails(EACCES), kNone, When::kHolding},
    {"ring-allocate", allocate, fails(EACCES), kKilled, When::kHolding},
    {"ring-grow", growDisk<std::uint64_t{1} << 40>, fails(EFBIG), kKilled, When::kHolding},
    {"ring-grow-by-a-byte", growDisk<0>, fails(EFBIG), kKilled, When::kHolding},
    {"ring-any-file", writeToHost, fails(EACCES), kNone},
    {"ring-copy", useCopy, kKilled, kNone},
    {"ring-lift", lift},
    {"ring-elsewhere", [](const Loot& loot) { return raw(__NR_io_uring_enter, loot.rpc, 0, 0, 0, nullptr, 0); }},
};

}  // namespace

std::span<const Attack> ringAttacks() {
  return kAttacks;
}

}  // namespace vmmhost::hostile
