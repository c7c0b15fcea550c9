// Files that were checked, bound into a jail: what is bound is what was checked, and is no more than was planned.
#include <fcntl.h>
#include <linux/mount.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "ipc/jail/spawn/test_jail.h"

namespace vmmhost::spawn {
namespace {

// Two folders, "fixed" and "share", with a file each, that everybody may write to.
class Folders {
 public:
  Folders() {
    std::string pattern = testing::TempDir() + "vmmhost-binds-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
    ::chmod(path_.c_str(), 0755);
    for (const char* name : {"fixed", "share"}) {
      std::filesystem::create_directory(of(name));
      ::chmod(of(name).c_str(), 0777);
      std::ofstream(of(name) + "/file") << "content";
      ::chmod((of(name) + "/file").c_str(), 0666);
    }
  }
  ~Folders() { std::filesystem::remove_all(path_); }
  Folders(const Folders&) = delete;
  Folders& operator=(const Folders&) = delete;

  std::string of(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

class BindsTest : public JailTest {
 protected:
  // A root of what is bound, and a policy with which files of it are opened, made and written.
  void open(const Folders& folders) {
    request_.jail.root = Jail::Root::kBinds;
    request_.jail.seccompPolicy = "worker-system";
    fixed_.reset(::open(folders.of("fixed").c_str(), O_PATH | O_CLOEXEC));
    share_.reset(::open(folders.of("share").c_str(), O_PATH | O_CLOEXEC));
    request_.jail.binds = {bindOf(folders.of("fixed"), "/fixed", fixed_),
                           bindOf(folders.of("share"), "/a/share", share_)};
    request_.jail.binds[1].readOnly = false;
  }
  static Bind bindOf(const std::string& source, const std::string& target, const Fd& descriptor) {
    return {.source = source, .target = target, .descriptor = descriptor.get()};
  }
  std::int64_t openInside(const char* path, int flags) {
    return resultOf(SYS_openat, {AT_FDCWD, path, flags | O_CLOEXEC, 0644});
  }

  Fd fixed_, share_;
};

TEST_F(BindsTest, checkedFiles_areBoundAsPlanned) {
  asBoth([&] {
    const Folders folders;
    open(folders);
    const Child child = start();
    EXPECT_EQ(violationsOf(child), "");
    EXPECT_GE(openInside("/fixed/file", O_RDONLY), 0);
    EXPECT_GE(openInside("/a/share/file", O_RDWR), 0);
    EXPECT_GE(openInside("/a/share/made", O_CREAT | O_EXCL | O_WRONLY), 0);
    EXPECT_TRUE(std::filesystem::exists(folders.of("share/made")));
  });
}

TEST_F(BindsTest, readOnlyBind_isWrittenToByNobody) {
  asBoth([&] {
    const Folders folders;
    open(folders);
    const Child child = start();
    for (const int flags : {O_WRONLY, O_RDWR, O_WRONLY | O_TRUNC}) {
      EXPECT_LT(openInside("/fixed/file", flags), 0) << flags;
    }
    EXPECT_LT(openInside("/fixed/made", O_CREAT | O_WRONLY), 0);
    EXPECT_FALSE(std::filesystem::exists(folders.of("fixed/made")));
    EXPECT_EQ(std::filesystem::file_size(folders.of("fixed/file")), 7u);
  });
}

TEST_F(BindsTest, mountsAreChangedByNobody) {
  asBoth([&] {
    const Folders folders;
    open(folders);
    EXPECT_TRUE(isForbidden(SYS_mount, {0, "/fixed", 0, static_cast<unsigned long>(MS_REMOUNT | MS_BIND), 0}));
    EXPECT_TRUE(isForbidden(SYS_mount_setattr, {AT_FDCWD, "/fixed", 0, Argument::room(32), 32}));
    EXPECT_TRUE(isForbidden(SYS_umount2, {"/fixed", MNT_DETACH}));
    EXPECT_TRUE(isForbidden(SYS_open_tree, {AT_FDCWD, "/fixed", static_cast<int>(OPEN_TREE_CLONE)}));
  });
}

TEST_F(BindsTest, withoutFilters_mountsAreChangedByNobodyEither) {
  if (!isRoot()) {
    GTEST_SKIP() << "only root can lift filters";
  }
  const Folders folders;
  open(folders);
  for (const char* without : {"", "landlock"}) {
    if (*without != '\0') {
      request_.jail.without = {without};
    }
    const Child child = start();
    const WithoutFilters lifted(child.pid());
    EXPECT_EQ(resultOf(SYS_mount, {0, "/fixed", 0, static_cast<unsigned long>(MS_REMOUNT | MS_BIND), 0}), -EPERM);
    mount_attr writable = {};
    writable.attr_clr = MOUNT_ATTR_RDONLY;
    const std::string bytes(reinterpret_cast<const char*>(&writable), sizeof(writable));
    EXPECT_EQ(resultOf(SYS_mount_setattr, {AT_FDCWD, "/fixed", 0, Argument::bytesOf(bytes), sizeof(writable)}), -EPERM);
    EXPECT_EQ(resultOf(SYS_umount2, {"/fixed", MNT_DETACH}), -EPERM);
    EXPECT_EQ(resultOf(SYS_open_tree, {AT_FDCWD, "/fixed", static_cast<int>(OPEN_TREE_CLONE)}), -EPERM);
    EXPECT_EQ(openInside("/fixed/file", O_WRONLY), -EROFS);
  }
}

TEST_F(BindsTest, nothingOfABindIsExecuted_unlessSaid) {
  asBoth([&] {
    const Folders folders;
    open(folders);
    const auto mapInside = [&] {
      const std::int64_t file = openInside("/fixed/file", O_RDONLY);
      EXPECT_GE(file, 0);
      return resultOf(SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, static_cast<int>(file), 0});
    };
    {
      const Child child = start();
      EXPECT_EQ(mapInside(), -EPERM);
    }
    request_.jail.binds[0].executable = true;
    const Child child = start();
    EXPECT_EQ(violationsOf(child), "");
    confinement::Expectation expected = child.expectation();
    expected.mounts[0].noExecution = true;
    EXPECT_EQ(violationsOf(expected), "the mount /fixed is not noexec\n");
    EXPECT_GT(mapInside(), 0);
  });
}

TEST_F(BindsTest, fileThatWasExchangedMeanwhile_isNamedAndNotBound) {
  asBoth([&] {
    const Folders folders;
    const std::string path = folders.of("fixed/file");
    const auto expectRefusal = [&](const std::string& reason) {
      const std::string said = refusal();
      EXPECT_NE(said.find(path + ": " + reason), std::string::npos) << said;
    };
    open(folders);
    const Fd checked(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    request_.jail.binds = {bindOf(path, "/file", checked)};
    EXPECT_EQ(refusal(), "started");
    const char* const exchanged =
        "what is to be bound into the root is another file by now than the one that was checked";
    std::ofstream(path + ".new") << "another";
    std::filesystem::rename(path + ".new", path);
    expectRefusal(exchanged);
    std::filesystem::remove(path);
    expectRefusal("opening what is to be bound into the root: No such file");
    std::filesystem::create_symlink(folders.of("share/file"), path);
    expectRefusal(exchanged);
    // A link to the very file that was checked is none either: it may lead elsewhere in a moment.
    const Fd other(::open(folders.of("share/file").c_str(), O_RDONLY | O_CLOEXEC));
    request_.jail.binds = {bindOf(path, "/file", other)};
    expectRefusal(exchanged);
  });
}

TEST_F(BindsTest, whoStartsTheProcess_findsTheWay_notTheProcess) {
  if (!isRoot()) {
    GTEST_SKIP() << "a process of an ordinary user finds its way as the user does";
  }
  const Folders folders;
  std::filesystem::create_directories(folders.of("private/share"));
  ::chmod(folders.of("private").c_str(), 0700);
  open(folders);
  share_.reset(::open(folders.of("private/share").c_str(), O_PATH | O_CLOEXEC));
  request_.jail.binds = {bindOf(folders.of("private/share"), "/share", share_)};
  const Child child = start();
  EXPECT_EQ(violationsOf(child), "");
  EXPECT_GE(openInside("/share", O_RDONLY | O_DIRECTORY), 0);
}

TEST_F(BindsTest, bindThatIsNotAsPlanned_isSeenFromOutside) {
  asBoth([&] {
    const Folders folders;
    open(folders);
    const Child child = start();
    confinement::Expectation expected = child.expectation();
    expected.mounts[1].readOnly = true;
    expected.mounts[1].writable = false;
    EXPECT_EQ(violationsOf(expected), "the mount /a/share is writable\n");
    expected = child.expectation();
    expected.mounts[0].readOnly = false;
    expected.mounts[0].writable = true;
    EXPECT_EQ(violationsOf(expected), "the mount /fixed is read-only, planned was a writable one\n");
    expected = child.expectation();
    expected.mounts.pop_back();
    EXPECT_NE(violationsOf(expected).find("there is an unplanned mount at /a/share"), std::string::npos);
  });
}

TEST_F(BindsTest, emptyRoot_hasWhatIsCheckedAndNothingElse) {
  asBoth([&] {
    const Folders folders;
    open(folders);
    request_.jail.root = Jail::Root::kEmpty;
    const Child child = start();
    EXPECT_EQ(violationsOf(child), "");
    EXPECT_GE(openInside("/fixed/file", O_RDONLY), 0);
    EXPECT_EQ(openInside("/", O_RDONLY), -EACCES);
  });
}

TEST_F(BindsTest, whatMustNotBeBound_isRefused) {
  const Folders folders;
  open(folders);
  const auto refusalOf = [&](const Bind& bind) {
    request_.jail.binds = {bind};
    return refusal();
  };
  Bind bind = bindOf(folders.of("share"), "/share", share_);
  for (const char* target : {"share", "/", "/a/../b", "/a//b", "/a/", "/./a", ""}) {
    bind.target = target;
    EXPECT_NE(refusalOf(bind).find("which is no plain absolute path"), std::string::npos) << target;
  }
  bind = {.source = folders.of("share"), .target = "/share", .readOnly = false};
  EXPECT_NE(refusalOf(bind).find("writable, but by its path alone"), std::string::npos);

  const std::string path = folders.of("socket");
  const Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  for (const std::string& source : {path, std::string("/dev/null")}) {
    const Fd file(::open(source.c_str(), O_PATH | O_CLOEXEC));
    EXPECT_NE(refusalOf(bindOf(source, "/file", file)).find(source + " is neither a regular file nor a folder"),
              std::string::npos);
  }
  request_.jail.binds.assign(kMaxCheckedBinds + 1, bindOf(folders.of("fixed"), "/fixed", fixed_));
  EXPECT_NE(refusal().find("binds more than 32 checked files"), std::string::npos);
}

}  // namespace
}  // namespace vmmhost::spawn
