#include "ipc/jail/spawn/libraries.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <limits.h>
#include <link.h>
#include <stdlib.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/built.h"
#include "tests/support/refusal.h"
#include "vmmhost/fd.h"

namespace vmmhost::spawn {
namespace {

Libraries of(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_TRUE(file) << path;
  return librariesOf(file.get());
}

std::string realPath(const std::string& path) {
  char real[PATH_MAX];
  return ::realpath(path.c_str(), real) != nullptr ? real : "";
}

// This program as it was loaded is what is compared with.
TEST(Libraries, areThoseThatTheLoaderHasLoaded) {
  const Libraries found = of("/proc/self/exe");
  ASSERT_NE(found.loader, "");
  EXPECT_EQ(std::count(found.files.begin(), found.files.end(), found.loader), 1);
  std::vector<std::string> loaded;
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* data) {
        if (*info->dlpi_name == '/') {
          static_cast<std::vector<std::string>*>(data)->push_back(info->dlpi_name);
        }
        return 0;
      },
      &loaded);
  EXPECT_GE(loaded.size(), 4u);
  for (const std::string& path : loaded) {
    const auto isIt = [&](const std::string& file) { return realPath(file) == realPath(path); };
    EXPECT_TRUE(std::any_of(found.files.begin(), found.files.end(), isIt)) << path;
  }
  for (const std::string& file : found.files) {
    EXPECT_TRUE(file == "/etc/ld.so.cache" || file.find(".so") != std::string::npos) << "no library: " << file;
  }
}

TEST(Libraries, ofAStaticExecutable_areNone) {
  const Libraries found = of(tests::built("bin/jail-inmate"));
  EXPECT_EQ(found.loader, "");
  EXPECT_TRUE(found.files.empty());
}

TEST(Libraries, thatAPlanHasBound_areNotBoundAgain) {
  using Files = std::vector<std::string>;
  const Files files = {"/lib64/ld.so", "/usr/lib/a.so", "/usr/lib/x/b.so", "/usr/lib/a.so"};
  EXPECT_EQ(filesBesides({}, files), (Files{"/lib64/ld.so", "/usr/lib/a.so", "/usr/lib/x/b.so"}));
  EXPECT_EQ(filesBesides({"/usr/lib/x", "/usr/lib/a"}, files), (Files{"/lib64/ld.so", "/usr/lib/a.so"}));
  EXPECT_EQ(filesBesides({"/lib64/ld.so", "/usr"}, files), Files{});
}

TEST(Libraries, whatIsNoExecutable_isRefused) {
  tests::expectRefusal("not an ELF executable", [] { of("/etc/passwd"); });
}

}  // namespace
}  // namespace vmmhost::spawn
