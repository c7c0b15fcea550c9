#include "host/runtime/directories.h"

#include <fcntl.h>

#include "host/runtime/testing.h"

namespace vmmhost::runtime {
namespace {

using namespace testing;

class DirectoriesTest : public RuntimeTest {
 protected:
  Error refusal(const fs::path& runtime) {
    return errorOf([&] { Directories::open({runtime.string(), (root / "state").string()}); });
  }
};

TEST_F(DirectoriesTest, missingFolders_areMadePrivate) {
  const fs::path deep = root / "a/b/c";
  Directories::open({deep.string() + "/", (root / "x").string()});
  for (const fs::path& path : {root / "a", root / "a/b", deep, root / "x"}) {
    struct stat status = {};
    ASSERT_EQ(::stat(path.c_str(), &status), 0) << path;
    EXPECT_EQ(status.st_mode & 07777, 0700u) << path;
  }
}

TEST_F(DirectoriesTest, linkInsteadOfTheFolder_isRefused) {
  fs::create_directory_symlink(root / "run", root / "link");
  EXPECT_EQ(refusal(root / "link").code(), ErrorCode::kConfinement);
  EXPECT_EQ(refusal(root / "link/").code(), ErrorCode::kConfinement);
}

TEST_F(DirectoriesTest, folderThatOthersCanEnter_isRefused) {
  fs::create_directory(root / "open");
  ::chmod((root / "open").c_str(), 0750);
  const Error error = refusal(root / "open");
  EXPECT_EQ(error.code(), ErrorCode::kConfinement);
  EXPECT_EQ(error.hint(), "chmod 700 " + (root / "open").string());
}

TEST_F(DirectoriesTest, folderOfAnotherUser_isRefusedAndItsOwnerNamed) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "only root can give folders away";
  }
  fs::create_directory(root / "foreign");
  ::chmod((root / "foreign").c_str(), 0700);
  ASSERT_EQ(::chown((root / "foreign").c_str(), 54321, 0), 0);
  const Error error = refusal(root / "foreign");
  EXPECT_EQ(error.code(), ErrorCode::kConfinement);
  EXPECT_NE(error.message().find("54321"), std::string::npos) << error.message();
}

// As anybody can do it to anybody in /tmp, where it cannot be removed.
TEST_F(DirectoriesTest, whatAnotherUserPutThere_isNotToBeRemoved_butHasAnAlternative) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "only root can give folders away";
  }
  fs::create_directory(root / "folder");
  write(root / "file", "");
  fs::create_directory_symlink(root / "run", root / "link");
  for (const char* name : {"folder", "file", "link"}) {
    ASSERT_EQ(::lchown((root / name).c_str(), 54321, 0), 0);
    const Error error = refusal(root / name);
    EXPECT_EQ(error.code(), ErrorCode::kConfinement) << name;
    EXPECT_NE(error.hint().find("VMMHOST_RUNTIME_DIR=$HOME/"), std::string::npos) << name << ": " << error.hint();
    EXPECT_EQ(error.hint().find("remove it"), std::string::npos) << name << ": " << error.hint();
  }
  const Error state = errorOf([&] { Directories::open({(root / "run").string(), (root / "folder").string()}); });
  EXPECT_NE(state.hint().find("VMMHOST_STATE_DIR=$HOME/"), std::string::npos) << state.hint();
}

TEST_F(DirectoriesTest, pathsThatCannotBe_areRefused) {
  EXPECT_EQ(refusal("").code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refusal("relative").code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refusal("/").code(), ErrorCode::kInvalidArgument);
  write(root / "file", "");
  EXPECT_EQ(refusal(root / "file").code(), ErrorCode::kConfinement);
  EXPECT_EQ(refusal(root / "file/below").code(), ErrorCode::kNotFound);
}

TEST_F(DirectoriesTest, folderThatCannotBeMade_isNamed_andNotThoseBelowIt) {
  const Error error = refusal("/proc/self/vmmhost-test/a/b");
  EXPECT_EQ(error.message().rfind("making the folder /proc/self/vmmhost-test: ", 0), 0u) << error.message();
  EXPECT_EQ(error.hint(), "VMMHOST_RUNTIME_DIR names another place");
}

TEST_F(DirectoriesTest, defaults_followTheEnvironmentUnlessItIsSomebodyElses) {
  const auto with = [](const char* runtime, const char* xdg) {
    ::setenv("VMMHOST_RUNTIME_DIR", runtime, 1);
    ::setenv("XDG_RUNTIME_DIR", xdg, 1);
    const std::string path = Directories::defaultPaths().runtime;
    ::unsetenv("VMMHOST_RUNTIME_DIR");
    ::unsetenv("XDG_RUNTIME_DIR");
    return path;
  };
  const std::string fallback = ::geteuid() == 0 ? "/run/vmmhost" : "/tmp/vmmhost-" + std::to_string(::geteuid());
  EXPECT_EQ(with("/somewhere", "/nowhere"), "/somewhere");
  EXPECT_EQ(with("relative", "/nowhere"), "relative");  // refused by open(), by name
  EXPECT_EQ(with("", root.c_str()), (root / "vmmhost").string());
  EXPECT_EQ(with("", "/nowhere"), fallback);
  EXPECT_EQ(with("", "relative"), fallback);
  if (::geteuid() == 0) {
    ASSERT_EQ(::chown(root.c_str(), 54321, 0), 0);
    EXPECT_EQ(with("", root.c_str()), fallback);
    ASSERT_EQ(::chown(root.c_str(), 0, 0), 0);
  }
}

}  // namespace
}  // namespace vmmhost::runtime
