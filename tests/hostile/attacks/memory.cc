// Code from data, and more than its share.
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "tests/hostile/attack.h"
#include "tests/hostile/attacks/raw.h"

namespace vmmhost::hostile {
namespace {

constexpr std::size_t kPage = 4096;

int mapCode(const Loot&) {
  return raw(__NR_mmap, nullptr, kPage, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

int makeCode(const Loot&) {
  void* page = ::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return raw(__NR_mprotect, page, kPage, PROT_READ | PROT_EXEC);
}

int mapSharedMemory(const Loot&) {
  return raw(__NR_mmap, nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

int takeAllDescriptors(const Loot&) {
  constexpr int kEnough = 4096;
  static int taken[kEnough];
  int count = 0;
  int error = 0;
  while (count < kEnough && error == 0) {
    taken[count] = ::eventfd(0, EFD_CLOEXEC);
    error = taken[count] < 0 ? errno : 0;
    count += error == 0 ? 1 : 0;
  }
  while (count > 0) {  // given back, to be able to tell
    ::close(taken[--count]);
  }
  return error;
}

void* stay(void*) {
  for (;;) {
    ::poll(nullptr, 0, -1);
  }
}

int startThreadsWithoutEnd(const Loot&) {
  pthread_attr_t small;
  ::pthread_attr_init(&small);
  ::pthread_attr_setstacksize(&small, 65536);
  for (int i = 0; i < 5000; ++i) {
    pthread_t thread;
    if (const int error = ::pthread_create(&thread, &small, stay, nullptr)) {
      return error;
    }
  }
  return 0;
}

// More mappings than anybody needs, each with all its pages: whoever wants to know what they are goes through all of
// them.
int mapOverAndOver(const Loot& loot) {
  constexpr int kMappings = 5000;
  const off_t bytes = ::lseek(loot.disk, 0, SEEK_END);
  for (int i = 0; i < kMappings; ++i) {
    void* again = ::mmap(nullptr, static_cast<std::size_t>(bytes), PROT_READ, MAP_SHARED | MAP_POPULATE, loot.disk, 0);
    if (again == MAP_FAILED) {
      return errno;
    }
  }
  return 0;
}

constexpr Attack kAttacks[] = {
    {"map-code", mapCode, kKilled, kHarmless},
    {"make-code", makeCode, kKilled, kHarmless},
    {"map-shared", mapSharedMemory, kKilled, kHarmless},
    {"take-descriptors", takeAllDescriptors, fails(EMFILE), fails(EMFILE)},
    {"thread-bomb", startThreadsWithoutEnd, fails(EAGAIN), fails(EAGAIN)},
    {"lock-memory", [](const Loot&) { return raw(__NR_mlockall, 3); }, kKilled, fails(EPERM)},
    {"move-pages", [](const Loot&) { return raw(__NR_move_pages, 0, 0, nullptr, nullptr, nullptr, 0); }},
    {"secret-memory", [](const Loot&) { return raw(__NR_memfd_secret, 0); }},
    {"executable-memfd", [](const Loot&) { return raw(__NR_memfd_create, "x", MFD_CLOEXEC | 0x10); }, kKilled,
     fails(EINVAL)},
    // For tests of whether others are answered meanwhile.
    {"many-mappings", mapOverAndOver, kHarmless, kHarmless, When::kStays},
};

}  // namespace

std::span<const Attack> memoryAttacks() {
  return kAttacks;
}

}  // namespace vmmhost::hostile
