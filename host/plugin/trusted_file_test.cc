#include "host/plugin/trusted_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include "host/plugin/testing.h"

namespace vmmhost::plugin {
namespace {

using namespace testing;
using ::testing::Test;

class TrustedFileTest : public Test {
 protected:
  Folder folder;
  fs::path root = folder.path();
  std::string file = write(root / "a/b/file", "content");

  Error refusal(const fs::path& path) {
    return errorOf([&] { openTrusted(path.string(), "plugin"); });
  }
};

TEST_F(TrustedFileTest, ownFileBelowStickyFolder_isOpened) {
  const TrustedFile opened = openTrusted(file, "plugin");
  EXPECT_EQ(opened.path, fs::canonical(file).string());
  char byte = 0;
  EXPECT_EQ(::read(opened.file.get(), &byte, 1), 1);
  EXPECT_EQ(byte, 'c');
}

TEST_F(TrustedFileTest, dotsAndLinksOnTheWay_areResolved) {
  fs::create_directory_symlink("../a/./b/../b", root / "a/link");
  fs::create_directory_symlink(root / "a", root / "absolute");
  const TrustedFile opened = openTrusted((root / "absolute/link/../b/./file").string(), "plugin");
  EXPECT_EQ(opened.path, fs::canonical(file).string());
}

TEST_F(TrustedFileTest, linkInsteadOfFile_isRefused) {
  fs::create_symlink(file, root / "a/b/link");
  const Error error = refusal(root / "a/b/link");
  EXPECT_EQ(error.code(), ErrorCode::kConfinement);
  EXPECT_NE(error.message().find("symbolic link"), std::string::npos) << error.message();
}

TEST_F(TrustedFileTest, linksInACircle_areRefused) {
  fs::create_directory_symlink("two", root / "one");
  fs::create_directory_symlink("one", root / "two");
  EXPECT_EQ(refusal(root / "one/file").code(), ErrorCode::kInvalidArgument);
}

TEST_F(TrustedFileTest, fileThatOthersCanWrite_isRefusedWithTheCommandThatMendsIt) {
  ::chmod(file.c_str(), 0664);
  const Error error = refusal(file);
  EXPECT_EQ(error.code(), ErrorCode::kConfinement);
  EXPECT_NE(error.message().find("others can write it"), std::string::npos) << error.message();
  EXPECT_EQ(error.hint(), "chmod go-w " + fs::canonical(file).string());
}

TEST_F(TrustedFileTest, groupWritableFolderFarAbove_isRefused) {
  ::chmod((root / "a").c_str(), 0775);
  const Error error = refusal(file);
  EXPECT_EQ(error.code(), ErrorCode::kConfinement);
  EXPECT_NE(error.message().find((root / "a").string()), std::string::npos) << error.message();
}

TEST_F(TrustedFileTest, fileDirectlyInAStickyFolder_isRefused) {
  ::chmod((root / "a/b").c_str(), 01777);
  EXPECT_EQ(refusal(file).code(), ErrorCode::kConfinement);
}

TEST_F(TrustedFileTest, foreignOwnerOfFileFolderOrLink_isRefused) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "only root can give files away";
  }
  constexpr uid_t kOther = 54321;
  ASSERT_EQ(::chown(file.c_str(), kOther, 0), 0);
  const Error error = refusal(file);
  EXPECT_EQ(error.code(), ErrorCode::kConfinement);
  EXPECT_NE(error.message().find("54321"), std::string::npos) << error.message();
  ASSERT_EQ(::chown(file.c_str(), 0, 0), 0);
  EXPECT_NO_THROW(openTrusted(file, "plugin"));

  ASSERT_EQ(::chown((root / "a").c_str(), kOther, 0), 0);
  EXPECT_EQ(refusal(file).code(), ErrorCode::kConfinement);
  ASSERT_EQ(::chown((root / "a").c_str(), 0, 0), 0);

  fs::create_directory_symlink("a", root / "link");
  EXPECT_NO_THROW(openTrusted((root / "link/b/file").string(), "plugin"));
  ASSERT_EQ(::lchown((root / "link").c_str(), kOther, 0), 0);
  EXPECT_EQ(refusal(root / "link/b/file").code(), ErrorCode::kConfinement);
}

TEST_F(TrustedFileTest, whatIsNoRegularFile_isRefusedAtOnce) {
  ASSERT_EQ(::mkfifo((root / "a/b/fifo").c_str(), 0644), 0);
  EXPECT_EQ(refusal(root / "a/b/fifo").code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refusal(root / "a/b").code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refusal("/").code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refusal("").code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refusal("a/b/file").code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refusal("/" + std::string(5000, 'x')).code(), ErrorCode::kInvalidArgument);
}

TEST_F(TrustedFileTest, missingFile_isNotFoundAndNamed) {
  const Error error = refusal(root / "a/nothing/file");
  EXPECT_EQ(error.code(), ErrorCode::kNotFound);
  EXPECT_NE(error.message().find("a/nothing/file"), std::string::npos) << error.message();
}

}  // namespace
}  // namespace vmmhost::plugin
