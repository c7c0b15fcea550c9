#include "worker-kvm/threads/thread.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace vmmhost::kvm::threads {
namespace {

TEST(Thread, hasNoRestartableSequences) {
  // As the kernel's struct rseq was at first. It can be registered where nothing is.
  struct alignas(32) Area {
    std::uint8_t bytes[32]{};
  };
  constexpr std::uint32_t kSignature = 0x53053053;
  constexpr int kUnregister = 1;
  Area area;
  int error = 0;
  {
    const Thread thread("test", [&] {
      error = ::syscall(__NR_rseq, &area, sizeof area, 0, kSignature) == 0 ? 0 : errno;
      ::syscall(__NR_rseq, &area, sizeof area, kUnregister, kSignature);
    });
  }
  if (error == ENOSYS) {
    GTEST_SKIP() << "the kernel has none";
  }
  EXPECT_EQ(error, 0);
}

}  // namespace
}  // namespace vmmhost::kvm::threads
