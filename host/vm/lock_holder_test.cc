#include "host/vm/lock_holder.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <string>

namespace vmmhost::vm {
namespace {

TEST(HeldLocks, areThoseOfFlockThatWereGiven) {
  const auto held = parseHeldLocks(
      "1: FLOCK  ADVISORY  WRITE 4711 fe:0a:131 0 EOF\n"
      "1: -> FLOCK  ADVISORY  WRITE 99 fe:0a:131 0 EOF\n"
      "2: POSIX  ADVISORY  READ  98 fe:0a:131 128 128\n"
      "3: OFDLCK ADVISORY  WRITE -1 fe:0a:131 0 EOF\n"
      "4: FLOCK  ADVISORY  READ  12 00:1c:18446744073709551615 0 EOF\n");
  ASSERT_EQ(held.size(), 2u);
  EXPECT_EQ(held[0].pid, 4711);
  EXPECT_EQ(held[0].device, makedev(0xfe, 0x0a));
  EXPECT_EQ(held[0].inode, 131u);
  EXPECT_EQ(held[1].pid, 12);
  EXPECT_EQ(held[1].device, makedev(0, 0x1c));
  EXPECT_EQ(held[1].inode, 18446744073709551615u);
}

TEST(HeldLocks, ofOtherText_areNone) {
  for (const char* text : {"", "\n\n", "FLOCK", "1: FLOCK", "1: FLOCK ADVISORY WRITE", "1: FLOCK ADVISORY WRITE 12",
                           "1: FLOCK ADVISORY WRITE 12 fe:0a 0 EOF", "1: FLOCK ADVISORY WRITE 12 131 0 EOF",
                           "1: FLOCK ADVISORY WRITE x fe:0a:131 0 EOF", "1: FLOCK ADVISORY WRITE 12 fe:0g:131 0 EOF",
                           "1: FLOCK ADVISORY WRITE 0 fe:0a:131 0 EOF"}) {
    EXPECT_TRUE(parseHeldLocks(text).empty()) << text;
  }
}

TEST(LockHolders, areNamed) {
  std::string path = (std::filesystem::temp_directory_path() / "vmmhost-lock-XXXXXX").string();
  const Fd file(::mkostemp(path.data(), O_CLOEXEC));
  ASSERT_TRUE(file);
  ::unlink(path.c_str());
  EXPECT_EQ(lockHolders(file), "");
  const Fd other(::open(("/proc/self/fd/" + std::to_string(file.get())).c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(::flock(other.get(), LOCK_SH), 0);
  ASSERT_EQ(::flock(file.get(), LOCK_SH), 0);
  std::string name(16, '\0');
  std::FILE* comm = std::fopen("/proc/self/comm", "re");
  name.resize(std::fread(name.data(), 1, name.size(), comm) - 1);
  std::fclose(comm);
  EXPECT_EQ(lockHolders(file), "process " + std::to_string(::getpid()) + " (" + name + ")");
}

}  // namespace
}  // namespace vmmhost::vm
