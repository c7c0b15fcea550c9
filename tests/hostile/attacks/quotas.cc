// What the kernel counts by user or by machine, and what no limit of a worker counts. That there is a bound of the VM's
// own shows in how far an attack gets.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/timerfd.h>

#include <csignal>
#include <cstring>
#include <ctime>
#include <vector>

#include "tests/hostile/attack.h"
#include "tests/hostile/attacks/raw.h"
#include "vmmhost/epolls.h"
#include "vmmhost/fd.h"

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
enum class Keep { kNo, kYes };

int queueSignals(const Loot&, Keep keep) {
  const int enough = keep == Keep::kYes ? 200'000 : 512;
  const int signal = SIGRTMIN + 3;
  sigset_t blocked;
  ::sigemptyset(&blocked);
  ::sigaddset(&blocked, signal);
  if (::pthread_sigmask(SIG_BLOCK, &blocked, nullptr) != 0) {
    return errno;
  }
  int error = 0;
  for (int queued = 0; queued < enough && error == 0; ++queued) {
    error = raw(__NR_tgkill, ::getpid(), ::syscall(__NR_gettid), signal);
  }
  if (keep == Keep::kNo) {
    ::signal(signal, SIG_IGN);
  }
  return error;
}

int advise(int advice) {
  page[0] = 1;
  return raw(__NR_madvise, page, kPage, advice);
}

// What takes page tables and nothing else, of which RLIMIT_DATA knows nothing.
int takePageTables(const Loot&) {
  constexpr std::size_t kBytes = std::size_t{10} << 40;
  void* const room = ::mmap(nullptr, kBytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return room == MAP_FAILED ? errno : ::munmap(room, kBytes) == 0 ? 0 : errno;
}

bool isInStaticJail(const Loot& loot) {
  return std::strncmp(loot.rings, "rings=", 6) == 0;  // the other jails have none
}

// What nobody is to have of the machine and of the user, as far as the jail answers with an error: what ends the worker
// is an attack of its own. All that can be had is kept, and counted.
int takeWhatIsForbidden(const Loot& loot) {
  constexpr std::size_t kHugePage = std::size_t{2} << 20;
  constexpr std::size_t kBytes = std::size_t{64} << 20;
  constexpr unsigned kNoExecSeal = 8;  // MFD_NOEXEC_SEAL
  static char block[std::size_t{1} << 20];
  if (isInStaticJail(loot)) {
    return 0;
  }
  std::memset(block, 'x', sizeof block);
  int taken = 0;
  for (int attempt = 0; attempt < 64; ++attempt) {
    taken += map(kHugePage, MAP_HUGETLB | MAP_POPULATE) == 0 ? 1 : 0;
  }
  for (int attempt = 0; attempt < 8; ++attempt) {
    for (const unsigned flags : {MFD_CLOEXEC, MFD_CLOEXEC | kNoExecSeal, MFD_CLOEXEC | MFD_HUGETLB}) {
      const auto memory = static_cast<int>(::syscall(__NR_memfd_create, "x", flags));
      if (memory < 0) {
        continue;
      }
      ++taken;
      for (std::size_t written = 0; written < kBytes; written += sizeof block) {
        if (::write(memory, block, sizeof block) <= 0) {
          break;
        }
      }
    }
  }
  // Pipes may be had, of the usual size.
  for (int attempt = 0; attempt < 8; ++attempt) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) == 0) {
      taken += ::fcntl(ends[0], F_SETPIPE_SZ, 1 << 20) >= 0 ? 1 : 0;
    }
  }
  return taken;
}

// All that can be watched: each instance of epoll watches each file under each number that the file can have. Files are
// descriptors, so that a worker that may duplicate none has as many watches as files.
class Watches {
 public:
  explicit Watches(const Loot& loot) {
    const auto inherited = epolls::parseArgument(loot.epolls);
    if (inherited) {
      for (unsigned index = 0; index < inherited->count; ++index) {
        epolls_.push_back(inherited->firstDescriptor + static_cast<int>(index));
      }
    }
    // What is not allowed may end the process: a worker that cannot make them in a static jail duplicates nothing.
    duplicates_ = !inherited || !isInStaticJail(loot);
    while (!inherited && epolls_.size() < kThird) {
      const long made = ::syscall(__NR_epoll_create1, EPOLL_CLOEXEC);
      if (made < 0) {
        break;
      }
      epolls_.push_back(static_cast<int>(made));
      made_.emplace_back(static_cast<int>(made));
    }
  }

  std::size_t take(std::size_t files) {
    while (made_.size() < epolls_.size() + files) {
      made_.emplace_back(::eventfd(0, EFD_CLOEXEC));
      const int file = made_.back().get();
      if (file < 0) {
        made_.pop_back();
        break;
      }
      watch(file);
      std::vector<Fd> copies;
      while (duplicates_ && copies.size() < kThird) {
        copies.emplace_back(::fcntl(file, F_DUPFD_CLOEXEC, 0));
        if (!copies.back()) {
          break;
        }
        watch(copies.back().get());
      }
    }
    return count_;
  }

 private:
  static constexpr std::size_t kThird = 80;  // of the descriptors

  void watch(int descriptor) {
    epoll_event event{};
    for (const int epoll : epolls_) {
      count_ += ::epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) == 0 ? 1 : 0;
    }
  }

  std::vector<int> epolls_;
  std::vector<Fd> made_;
  bool duplicates_ = false;
  std::size_t count_ = 0;
};

int watchEverything(const Loot& loot) {
  constexpr std::size_t kBound = 65536;  // of the square of its descriptors, in whatever jail
  return Watches(loot).take(80) > kBound ? E2BIG : 0;
}

// Everything that a user or the machine has so much of, and stays; but who got something that nobody is to have ends,
// which is seen from outside. inotify, keys, locks and POSIX timers are in no policy: attacks of their own.
int takeEverything(const Loot& loot) {
  if (takeWhatIsForbidden(loot) > 0) {
    ::_exit(3);
  }
  static Watches watches(loot);
  watches.take(200);
  queueSignals(loot, Keep::kYes);
  for (int taken = 0; taken < 4096; ++taken) {
    if (::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC) < 0) {
      break;
    }
  }
  return 0;
}

constexpr Attack kAttacks[] = {
    {"huge-pages", takeHugePages, kKilled, fails(EPERM)},
    {"huge-memfd", [](const Loot&) { return rawOpen(__NR_memfd_create, "x", MFD_CLOEXEC | MFD_HUGETLB); }, kKilled,
     fails(EINVAL)},
    {"memory-file", [](const Loot&) { return rawOpen(__NR_memfd_create, "x", MFD_CLOEXEC); }, kKilled, fails(EINVAL)},
    // A stack, as far as the kernel can tell: RLIMIT_DATA does not count it.
    {"grow-down", [](const Loot&) { return map(std::size_t{8} << 30, MAP_GROWSDOWN | MAP_NORESERVE); }, kKilled,
     fails(EPERM)},
    {"take-page-tables", takePageTables, fails(ENOMEM), kHarmless},
    {"merge-pages", [](const Loot&) { return advise(MADV_MERGEABLE); }, fails(EINVAL), fails(EINVAL)},
    {"page-out", [](const Loot&) { return advise(MADV_PAGEOUT); }, fails(EINVAL), fails(EINVAL)},
    // CLOSE_RANGE_UNSHARE: a table of descriptors of its own, of which /proc/PID/fd shows nothing.
    {"hide-descriptors", [](const Loot&) { return raw(__NR_close_range, 200U, 201U, 2U); }, fails(EINVAL),
     fails(EINVAL)},
    {"pipe-pages", enlargePipe, kKilled, fails(EINVAL)},
    {"signals-that-wait", [](const Loot& loot) { return queueSignals(loot, Keep::kNo); }, fails(EAGAIN), fails(EAGAIN)},
    {"epoll-create", [](const Loot&) { return rawOpen(__NR_epoll_create1, EPOLL_CLOEXEC); }, kKilled, fails(EMFILE)},
    {"epoll-watches", watchEverything, kHarmless, kHarmless},
    {"take-everything", takeEverything, kHarmless, kHarmless, When::kStays},
    {"timer", makeTimer},
    {"interval-timer", setIntervalTimer},
};

}  // namespace

std::span<const Attack> quotaAttacks() {
  return kAttacks;
}

}  // namespace vmmhost::hostile
