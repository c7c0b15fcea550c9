// The allocator under a worker's filter, in many threads at a time.
#include "ipc/sdk/heap.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <locale>
#include <sstream>
#include <stdexcept>
#include <string>

#include "vmmhost/seccomp.h"

namespace vmmhost::worker {
namespace {

#ifndef VMMHOST_SANITIZED
constexpr std::size_t kThreads = 40;  // more than any machine's processors allow heaps
pthread_barrier_t barrier;

// What makes glibc set up, enlarge and give back a thread's heap, and the C++ library what it keeps for each thread.
void* use(void*) {
  ::pthread_barrier_wait(&barrier);
  std::array<void*, 24> blocks{};
  for (void*& block : blocks) {
    block = std::malloc(100 * 1024);  // below what is mapped by itself
    static_cast<volatile char*>(block)[0] = 1;
  }
  ::pthread_barrier_wait(&barrier);
  for (void* block : blocks) {
    std::free(block);
  }
  try {
    std::ostringstream text;
    text.imbue(std::locale::classic());
    text << 1.5 << std::string(300'000, 'x');
    throw std::runtime_error(text.str());
  } catch (const std::exception&) {
  }
  ::pthread_barrier_wait(&barrier);
  return nullptr;
}

[[noreturn]] void useInThreads(const char* policy) {
  shareOneHeap();
  ::pthread_barrier_init(&barrier, nullptr, kThreads);
  std::array<pthread_t, kThreads> threads{};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      seccomp::install(seccomp::compile(seccomp::basePolicy(policy, {})), false) != 0) {
    ::_exit(120);
  }
  for (pthread_t& thread : threads) {
    if (::pthread_create(&thread, nullptr, use, nullptr) != 0) {
      ::_exit(121);
    }
  }
  for (const pthread_t thread : threads) {
    ::pthread_join(thread, nullptr);
  }
  ::_exit(0);
}

TEST(Heap, ofManyThreads_makesNoCallThatAFilterDoesNotName) {
  const pid_t child = ::fork();
  if (child == 0) {
    useInThreads("worker-static");
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_FALSE(WIFSIGNALED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}
#endif

}  // namespace
}  // namespace vmmhost::worker
