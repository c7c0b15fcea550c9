// Misusing what it was handed: disk, counters page, console. The test compares the host's view before and after.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cstdint>
#include <cstring>

#include "tests/hostile/attack.h"
#include "tests/hostile/attacks/raw.h"

namespace vmmhost::hostile {
namespace {

constexpr std::size_t kPage = 4096;

template <int kCommand>
int control(const Loot& loot) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  return raw(__NR_fcntl, loot.disk, kCommand, &lock);
}

int fillCounters(const Loot& loot) {
  void* page = ::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, loot.counters, 0);
  if (page == MAP_FAILED) {
    return errno;
  }
  auto* words = static_cast<volatile std::uint64_t*>(page);
  std::uint64_t value = 0x9e3779b97f4a7c15u;
  for (std::size_t i = 0; i < kPage / sizeof value; ++i) {
    words[i] = value;
    value = value * 6364136223846793005u + 1442695040888963407u;
  }
  return 0;
}

int growCounters(const Loot& loot) {
  return ::pwrite(loot.counters, "x", 1, kPage) < 0 ? errno : 0;
}

int flood(int descriptor) {
  static char block[65536];
  std::memset(block, '\x1b', sizeof block);
  for (int i = 0; i < 64; ++i) {
    if (::write(descriptor, block, sizeof block) < 0) {
      return 0;  // full: that is the point
    }
  }
  return 0;
}

// Blocks behind the end of the file, which keeps its length.
template <int kMode>
int takeBlocks(const Loot& loot) {
  return raw(__NR_fallocate, loot.disk, kMode, 0L, 5L << 30);
}

int growByAByte(const Loot& loot) {
  return ::pwrite(loot.disk, "x", 1, ::lseek(loot.disk, 0, SEEK_END)) < 0 ? errno : 0;
}

// Twice as long again and again, until it can no more. Succeeds where that was once at least.
int growFurther(const Loot& loot) {
  const off_t before = ::lseek(loot.disk, 0, SEEK_END);
  for (off_t bytes = 2 * before; bytes <= off_t{1} << 40; bytes *= 2) {
    if (::pwrite(loot.disk, "x", 1, bytes - 1) < 0) {
      return bytes == 2 * before ? errno : 0;
    }
  }
  return 0;
}

int append(const Loot& loot) {
  if (const int error = raw(__NR_fcntl, loot.disk, F_SETFL, O_APPEND)) {
    return error;
  }
  return ::write(loot.disk, "x", 1) < 0 ? errno : 0;
}

constexpr Attack kAttacks[] = {
    {"disk-setuid", [](const Loot& loot) { return raw(__NR_fchmod, loot.disk, 06755); }, kKilled, kKilled,
     When::kHolding},
    {"disk-owner", [](const Loot& loot) { return raw(__NR_fchown, loot.disk, 0, 0); }, kKilled, kKilled,
     When::kHolding},
    {"disk-attribute", [](const Loot& loot) { return raw(__NR_fsetxattr, loot.disk, "user.x", "y", 1, 0); }, kKilled,
     kKilled, When::kHolding},
    {"disk-times", [](const Loot& loot) { return raw(__NR_utimensat, loot.disk, nullptr, nullptr, 0); }, kKilled,
     kKilled, When::kHolding},
    {"disk-truncate", [](const Loot& loot) { return raw(__NR_ftruncate, loot.disk, 0L); }, kKilled, fails(EPERM),
     When::kHolding},
    {"disk-allocate", [](const Loot& loot) { return raw(__NR_fallocate, loot.disk, 0, 0L, 1L << 40); },
     fails(EOPNOTSUPP), fails(EOPNOTSUPP), When::kHolding},
    {"disk-zero-range", takeBlocks<FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE>, fails(EOPNOTSUPP), fails(EOPNOTSUPP),
     When::kHolding},
    {"disk-keep-size", takeBlocks<FALLOC_FL_KEEP_SIZE>, fails(EOPNOTSUPP), fails(EOPNOTSUPP), When::kHolding},
    // RLIMIT_FSIZE is the size of the largest disk; SIGXFSZ comes with EFBIG. With a larger disk beside it see
    // test_disks.py.
    {"disk-grow", [](const Loot& loot) { return ::pwrite(loot.disk, "x", 1, off_t{1} << 40) < 0 ? errno : 0; },
     fails(EFBIG), fails(EFBIG), When::kHolding},
    {"disk-grow-by-a-byte", growByAByte, fails(EFBIG), fails(EFBIG), When::kHolding},
    {"disk-grow-further", growFurther, fails(EFBIG), fails(EFBIG), When::kHolding},
    {"disk-grow-and-stay", growFurther, kHarmless, kHarmless, When::kStays},
    {"disk-append", append, kKilled, fails(EFBIG), When::kHolding},
    {"disk-flock", [](const Loot& loot) { return raw(__NR_flock, loot.disk, LOCK_EX); }, kKilled, kKilled,
     When::kHolding},
    {"disk-unlock", [](const Loot& loot) { return raw(__NR_flock, loot.disk, LOCK_UN); }, kKilled, kKilled,
     When::kHolding},
    {"disk-posix-lock", control<F_SETLK>, kKilled, fails(EINVAL), When::kHolding},
    {"disk-ofd-lock", control<37>, kKilled, fails(EINVAL), When::kHolding},
    {"disk-lease", [](const Loot& loot) { return raw(__NR_fcntl, loot.disk, 1024, F_WRLCK); }, kKilled, fails(EINVAL),
     When::kHolding},
    {"disk-notify", [](const Loot& loot) { return raw(__NR_fcntl, loot.disk, 1026, 0x80000000u | 1); }, kKilled,
     fails(EINVAL), When::kHolding},
    {"disk-owner-signal", [](const Loot& loot) { return raw(__NR_fcntl, loot.disk, F_SETOWN, 1); }, kKilled,
     fails(EINVAL), When::kHolding},
    {"disk-flags", [](const Loot& loot) { return raw(__NR_fcntl, loot.disk, F_SETFL, O_APPEND); }, kKilled, kHarmless,
     When::kHolding},
    {"disk-code",
     [](const Loot& loot) { return raw(__NR_mmap, nullptr, kPage, PROT_EXEC, MAP_PRIVATE, loot.disk, 0L); }, kKilled,
     kHarmless, When::kHolding},
    {"counters-shrink", [](const Loot& loot) { return raw(__NR_ftruncate, loot.counters, 0L); }, kKilled, fails(EPERM),
     When::kHolding},
    {"counters-seal", [](const Loot& loot) { return raw(__NR_fcntl, loot.counters, F_ADD_SEALS, F_SEAL_WRITE); },
     fails(EPERM), fails(EPERM), When::kHolding},
    {"counters-grow", growCounters, fails(EPERM), fails(EPERM), When::kHolding},
    {"counters-random", fillCounters, kHarmless, kHarmless, When::kHolding},
    {"console-flood", [](const Loot& loot) { return flood(loot.console); }, kHarmless, kHarmless, When::kHolding},
    {"log-flood", [](const Loot&) { return flood(2); }, kHarmless, kHarmless, When::kHolding},
};

}  // namespace

std::span<const Attack> lootAttacks() {
  return kAttacks;
}

}  // namespace vmmhost::hostile
