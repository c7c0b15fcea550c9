#include "worker/boot_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "tests/tiny_guest.h"
#include "vmmhost/error.h"

namespace qemubackend {
namespace {

using vmmhost::Fd;

// Not root for a while: root may open everything.
class OrdinaryUser {
 public:
  OrdinaryUser() {
    if (::geteuid() == 0 && ::seteuid(65534) != 0) {
      throw vmmhost::systemError("seteuid", errno);
    }
  }
  ~OrdinaryUser() {
    if (::getuid() == 0 && ::seteuid(0) != 0) {
      std::abort();
    }
  }
};

std::string contentOf(const Fd& file) {
  std::string content(4 << 20, '\0');
  content.resize(static_cast<std::size_t>(::pread(file.get(), content.data(), content.size(), 0)));
  return content;
}

ino_t inodeOf(const Fd& file) {
  struct stat status = {};
  ::fstat(file.get(), &status);
  return status.st_ino;
}

TEST(BootFileTest, fileThatCanBeOpenedAgain_isPassedOn) {
  Fd file = test::memoryFile("kernel");
  const ino_t inode = inodeOf(file);
  EXPECT_EQ(inodeOf(reopenable(std::move(file), "boot.kernel")), inode);
}

TEST(BootFileTest, fileOfSomeoneElse_isCopied) {
  std::string content;
  for (int i = 0; content.size() < (3 << 20) + 17; ++i) {
    content += std::to_string(i);
  }
  Fd file = test::memoryFile(content);
  ASSERT_EQ(::fchmod(file.get(), 0), 0);
  const ino_t inode = inodeOf(file);
  const OrdinaryUser user;
  const Fd copy = reopenable(std::move(file), "boot.kernel");
  EXPECT_NE(inodeOf(copy), inode);
  EXPECT_EQ(contentOf(copy), content);
}

TEST(BootFileTest, whatIsNoRegularFile_isRefusedByName) {
  try {
    reopenable(Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC)), "boot.initrd");
    FAIL();
  } catch (const vmmhost::Error& error) {
    EXPECT_EQ(error.message().rfind("boot.initrd", 0), 0u) << error.message();
  }
}

TEST(BootFileTest, beginningOfAShortFile_isAllOfIt) {
  const Fd file = test::memoryFile("abc");
  EXPECT_EQ(readBeginning(file.get(), 4096, "x").size(), 3u);
  EXPECT_EQ(readBeginning(file.get(), 2, "x").size(), 2u);
}

}  // namespace
}  // namespace qemubackend
