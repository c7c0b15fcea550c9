#include "host/vm/reopenable.h"

#include <capnp/message.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <vector>

#include "vmmhost/error.h"

namespace vmmhost::vm {
namespace {

constexpr uid_t kNobody = 54321;

class ReopenableTest : public testing::Test {
 public:
  ~ReopenableTest() noexcept override {}  // KJ's members may throw from theirs

 protected:
  ReopenableTest() {
    std::string path = testing::TempDir() + "reopenable-XXXXXX";
    file_.reset(::mkostemp(path.data(), O_CLOEXEC));
    ::unlink(path.c_str());
    content_.assign(3'000'000, 'k');
    content_.back() = 'e';
    EXPECT_EQ(::write(file_.get(), content_.data(), content_.size()), static_cast<ssize_t>(content_.size()));
    config_ = message_.initRoot<schema::VmConfig>();
    config_.initBoot().initKernel().setResource(7);
  }

  struct stat look(int file) {
    struct stat info = {};
    EXPECT_EQ(::fstat(file, &info), 0);
    return info;
  }
  // The kernel's descriptor afterwards.
  int reopenable(uid_t uid, gid_t gid) {
    resources_.files.clear();
    resources_.files.push_back({7, file_.duplicate()});
    copies_ = copiesOf(filesClosedTo(resources_, config_.asReader().getBoot(), uid, gid), isUnwanted_);
    if (copies_.empty()) {
      return resources_.files.front().fd.get();
    }
    EXPECT_EQ(copies_.front().resource, 7u);
    return copies_.front().fd.get();
  }
  bool isItself(int file) {
    return look(file).st_ino == look(file_.get()).st_ino && look(file).st_dev == look(file_.get()).st_dev;
  }

  Fd file_;
  std::string content_;
  capnp::MallocMessageBuilder message_;
  schema::VmConfig::Builder config_ = nullptr;
  OpenedResources resources_;
  std::vector<BootFile> copies_;
  std::atomic<bool> isUnwanted_ = false;
};

TEST_F(ReopenableTest, fileThatTheWorkerMayRead_isItself) {
  ASSERT_EQ(::fchmod(file_.get(), 0604), 0);
  EXPECT_TRUE(isItself(reopenable(kNobody, kNobody)));
  EXPECT_TRUE(isItself(reopenable(::geteuid(), kNobody)));
  ASSERT_EQ(::fchmod(file_.get(), 0640), 0);
  EXPECT_TRUE(isItself(reopenable(kNobody, look(file_.get()).st_gid)));
}

TEST_F(ReopenableTest, fileThatItMayNotRead_isACopyThatItMay) {
  for (const mode_t mode : {0600, 0640, 0044}) {
    ASSERT_EQ(::fchmod(file_.get(), mode), 0);
    const bool isOwner = mode == 0044;  // to whom the other bits do not apply
    const int copy = reopenable(isOwner ? look(file_.get()).st_uid : kNobody, kNobody);
    EXPECT_FALSE(isItself(copy)) << mode;
    EXPECT_EQ(look(copy).st_mode & 0777, 0644U);
    ASSERT_EQ(look(copy).st_size, static_cast<off_t>(content_.size()));
    std::string copied(content_.size(), '\0');
    EXPECT_EQ(::pread(copy, copied.data(), copied.size(), 0), static_cast<ssize_t>(copied.size()));
    EXPECT_TRUE(copied == content_);
  }
}

TEST_F(ReopenableTest, fileThatIsTooLargeToBeCopied_isRefusedByField) {
  ASSERT_EQ(::fchmod(file_.get(), 0600), 0);
  ASSERT_EQ(::ftruncate(file_.get(), static_cast<off_t>(kMaxCopiedBytes + 1)), 0);
  try {
    reopenable(kNobody, kNobody);
    FAIL() << "was copied";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(error.message().rfind("boot.kernel: has 1073741825 bytes", 0), 0u) << error.message();
  }
}

TEST_F(ReopenableTest, filesThatAreTooLargeTogether_areRefusedByField) {
  ASSERT_EQ(::fchmod(file_.get(), 0600), 0);
  ASSERT_EQ(::ftruncate(file_.get(), static_cast<off_t>(kMaxCopiedBytes / 2 + 1)), 0);
  config_.getBoot().initInitrd().setResource(8);
  resources_.files.push_back({7, file_.duplicate()});
  resources_.files.push_back({8, file_.duplicate()});
  try {
    filesClosedTo(resources_, config_.asReader().getBoot(), kNobody, kNobody);
    FAIL() << "would be copied";
  } catch (const Error& error) {
    EXPECT_EQ(error.message().rfind("boot.initrd: has 536870913 bytes", 0), 0u) << error.message();
    EXPECT_NE(error.message().find("all together"), std::string::npos) << error.message();
  }
}

TEST_F(ReopenableTest, copyThatNobodyWants_isNotMade) {
  ASSERT_EQ(::fchmod(file_.get(), 0600), 0);
  isUnwanted_ = true;
  try {
    reopenable(kNobody, kNobody);
    FAIL() << "was copied";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCancelled);
  }
}

}  // namespace
}  // namespace vmmhost::vm
