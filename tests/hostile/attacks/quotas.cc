// What the kernel counts by user or by machine, and what no limit of a worker counts. That there is a bound of the VM's
// own shows in how far an attack gets.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/time.h>

#include <csignal>
#include <ctime>

#include "tests/hostile/attack.h"
#include "tests/hostile/attacks/raw.h"

namespace vmmhost::hostile {
namespace {

constexpr std::size_t kPage = 4096;
alignas(kPage) char page[kPage];

int map(std::size_t bytes, int flags) {
  return raw(__NR_mmap, nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0L);
}

int takeHugePages(const Loot&) {
  constexpr std::size_t kHugePage = std::size_t{2} << 20;
  int error = 0;
  for (int taken = 0; taken < 64 && error == 0; ++taken) {
    error = map(kHugePage, MAP_HUGETLB | MAP_POPULATE);
  }
  return error;
}

int enlargePipe(const Loot&) {
  int ends[2];
  if (const int error = raw(__NR_pipe2, ends, O_CLOEXEC)) {
    return error;
  }
  const int error = raw(__NR_fcntl, ends[0], F_SETPIPE_SZ, 1 << 20);
  ::close(ends[0]);
  ::close(ends[1]);
  return error;
}

int makeTimer(const Loot&) {
  int timer = 0;
  return raw(__NR_timer_create, CLOCK_MONOTONIC, nullptr, &timer);
}

int setIntervalTimer(const Loot&) {
  const itimerval often{{0, 1}, {0, 1}};
  return raw(__NR_setitimer, ITIMER_REAL, &often, nullptr);
}

// Signals that wait: those above SIGRTMIN are queued one by one. Given back, to be able to tell.
int queueSignals(const Loot&) {
  constexpr int kEnough = 512;
  const int signal = SIGRTMIN + 3;
  sigset_t blocked;
  ::sigemptyset(&blocked);
  ::sigaddset(&blocked, signal);
  if (::pthread_sigmask(SIG_BLOCK, &blocked, nullptr) != 0) {
    return errno;
  }
  int error = 0;
  for (int queued = 0; queued < kEnough && error == 0; ++queued) {
    error = raw(__NR_tgkill, ::getpid(), ::syscall(__NR_gettid), signal);
  }
  ::signal(signal, SIG_IGN);
  return error;
}

int advise(int advice) {
  page[0] = 1;
  return raw(__NR_madvise, page, kPage, advice);
}

constexpr Attack kAttacks[] = {
    {"huge-pages", takeHugePages, kKilled, fails(EPERM)},
    {"huge-memfd", [](const Loot&) { return rawOpen(__NR_memfd_create, "x", MFD_CLOEXEC | MFD_HUGETLB); }, kKilled,
     fails(EINVAL)},
    {"memory-file", [](const Loot&) { return rawOpen(__NR_memfd_create, "x", MFD_CLOEXEC); }, kKilled, fails(EINVAL)},
    // A stack, as far as the kernel can tell: RLIMIT_DATA does not count it.
    {"grow-down", [](const Loot&) { return map(std::size_t{8} << 30, MAP_GROWSDOWN | MAP_NORESERVE); }, kKilled,
     fails(EPERM)},
    {"merge-pages", [](const Loot&) { return advise(MADV_MERGEABLE); }, fails(EINVAL), fails(EINVAL)},
    {"page-out", [](const Loot&) { return advise(MADV_PAGEOUT); }, fails(EINVAL), fails(EINVAL)},
    // CLOSE_RANGE_UNSHARE: a table of descriptors of its own, of which /proc/PID/fd shows nothing.
    {"hide-descriptors", [](const Loot&) { return raw(__NR_close_range, 200U, 201U, 2U); }, fails(EINVAL),
     fails(EINVAL)},
    {"pipe-pages", enlargePipe, kKilled, fails(EINVAL)},
    {"signals-that-wait", queueSignals, fails(EAGAIN), fails(EAGAIN)},
    {"timer", makeTimer},
    {"interval-timer", setIntervalTimer},
};

}  // namespace

std::span<const Attack> quotaAttacks() {
  return kAttacks;
}

}  // namespace vmmhost::hostile
