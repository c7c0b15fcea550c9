#include "ipc/jail/seccomp/call_names.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>

namespace vmmhost::seccomp {
namespace {

#if defined(__x86_64__)
TEST(CallNames, areThoseOfTheSystemsHeaders) {
  EXPECT_EQ(nameOfCallX86_64(SYS_read), "read");
  EXPECT_EQ(nameOfCallX86_64(SYS_socket), "socket");
  EXPECT_EQ(nameOfCallX86_64(SYS_prctl), "prctl");
  EXPECT_EQ(nameOfCallX86_64(SYS_execveat), "execveat");
  EXPECT_EQ(nameOfCallX86_64(SYS_rseq), "rseq");
  EXPECT_EQ(nameOfCallX86_64(SYS_pidfd_send_signal), "pidfd_send_signal");
  EXPECT_EQ(nameOfCallX86_64(SYS_clone3), "clone3");
  EXPECT_EQ(nameOfCallX86_64(SYS_process_mrelease), "process_mrelease");
  EXPECT_EQ(nameOfCallX86_64(SYS_openat2), "openat2");
}
#endif

TEST(CallNames, thereAreNoneElsewhere) {
  for (const std::int64_t number : {std::int64_t{-1}, std::int64_t{335}, std::int64_t{423}, std::int64_t{470},
                                    std::int64_t{0x40000000}, std::int64_t{1} << 40}) {
    EXPECT_EQ(nameOfCallX86_64(number), "") << number;
  }
}

}  // namespace
}  // namespace vmmhost::seccomp
