#include "host/vm/disk_plan.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "host/vm/qcow2_header.h"
#include "host/vm/test_image.h"
#include "vmmhost/error.h"

namespace vmmhost::vm {
namespace {

using Format = schema::Disk::Format;

constexpr std::uint64_t kMiB = 1 << 20;

Fd newFile(std::uint64_t bytes, const std::string& content = "") {
  std::string name = ::testing::TempDir() + "vmmhost-plan-XXXXXX";
  Fd file(::mkostemp(name.data(), O_CLOEXEC));
  ::unlink(name.c_str());
  EXPECT_EQ(::pwrite(file.get(), content.data(), content.size(), 0), static_cast<ssize_t>(content.size()));
  EXPECT_EQ(::ftruncate(file.get(), static_cast<off_t>(bytes)), 0);
  return file;
}

std::uint64_t lengthOf(const Fd& file) {
  struct stat info = {};
  EXPECT_EQ(::fstat(file.get(), &info), 0);
  return static_cast<std::uint64_t>(info.st_size);
}

TEST(DiskPlans, largest_isThatOfAllDisks) {
  DiskPlans plans;
  EXPECT_EQ(plans.largest(), 0u);
  plans.add("one", newFile(3 * kMiB), Format::RAW);
  plans.add("two", newFile(kMiB), Format::RAW);
  EXPECT_EQ(plans.largest(), 3 * kMiB);
  const TestImage image;
  const std::string header = image.header();
  plans.add("three", newFile(200'000, header), Format::QCOW2);
  EXPECT_EQ(plans.largest(), plannedBytes(parseQcow2Header(std::as_bytes(std::span(header))), 200'000));
  EXPECT_GT(plans.largest(), image.virtualBytes);
}

TEST(DiskPlans, whatIsNoImage_isRefused) {
  DiskPlans plans;
  EXPECT_THROW(plans.add("raw", newFile(kMiB), Format::QCOW2), Error);
  EXPECT_THROW(plans.add("short", newFile(50, TestImage().header().substr(0, 50)), Format::QCOW2), Error);
  EXPECT_EQ(plans.largest(), 0u);
}

TEST(DiskPlans, rawDiskThatBecameLonger_isCutBack_andToldWithBothLengths) {
  const Fd grown = newFile(kMiB, "content");
  const Fd kept = newFile(8 * kMiB);
  DiskPlans plans;
  plans.add("disks[0]: grown", grown.duplicate(), Format::RAW);
  plans.add("disks[1]: kept", kept.duplicate(), Format::RAW);
  EXPECT_FALSE(plans.needSettling());
  EXPECT_TRUE(plans.settle().empty());
  ASSERT_EQ(::pwrite(grown.get(), "x", 1, 5 * kMiB), 1);
  EXPECT_TRUE(plans.needSettling());
  EXPECT_EQ(plans.settle(),
            std::vector<std::string>{"disks[0]: grown: 5242881 bytes long at the VM's end, planned were "
                                     "1048576: cut back"});
  EXPECT_EQ(lengthOf(grown), kMiB);
  EXPECT_EQ(lengthOf(kept), 8 * kMiB);
  char content[7];
  ASSERT_EQ(::pread(grown.get(), content, 7, 0), 7);
  EXPECT_EQ(std::string(content, 7), "content");
  EXPECT_FALSE(plans.needSettling());
}

TEST(DiskPlans, rawDiskThatBecameShorter_isLeft) {
  const Fd file = newFile(kMiB);
  DiskPlans plans;
  plans.add("disk", file.duplicate(), Format::RAW);
  ASSERT_EQ(::ftruncate(file.get(), 512), 0);
  EXPECT_FALSE(plans.needSettling());
  EXPECT_TRUE(plans.settle().empty());
  EXPECT_EQ(lengthOf(file), 512u);
}

TEST(DiskPlans, imageThatGrows_isLeft_withinItsPlanAndBeyond) {
  TestImage image;
  image.virtualBytes = kMiB;
  const Fd file = newFile(200'000, image.header());
  DiskPlans plans;
  plans.add("disk", file.duplicate(), Format::QCOW2);
  const std::uint64_t planned = plans.largest();
  ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(planned)), 0);
  EXPECT_FALSE(plans.needSettling());
  ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(planned + 1)), 0);
  EXPECT_TRUE(plans.needSettling());
  ASSERT_EQ(plans.settle().size(), 1u);
  EXPECT_EQ(lengthOf(file), planned + 1) << "what is behind the plan may be what the image needs";
}

// Written by a worker, it would be the plan of the next start.
TEST(DiskPlans, imageThatClaimsToBeALargerDisk_isTold) {
  TestImage image;
  image.virtualBytes = kMiB;
  const Fd file = newFile(200'000, image.header());
  DiskPlans plans;
  plans.add("disks[0]: disk", file.duplicate(), Format::QCOW2);
  image.virtualBytes = 1024 * kMiB;
  ASSERT_EQ(::pwrite(file.get(), image.header().data(), 104, 0), 104);
  EXPECT_TRUE(plans.needSettling());
  EXPECT_EQ(plans.settle(),
            std::vector<std::string>{"disks[0]: disk: the image claims to be a disk of 1073741824 bytes "
                                     "now, it was one of 1048576"});
}

// Snapshots, and the mark that an image was not closed well: either would make the plan of the next start a larger one.
TEST(DiskPlans, headerThatPlansMore_isTold) {
  const TestImage before;
  TestImage withSnapshot;
  withSnapshot.snapshots = 1;
  TestImage dirty;
  dirty.incompatible = 1;
  for (const TestImage& after : {withSnapshot, dirty}) {
    const Fd file = newFile(200'000, before.header());
    DiskPlans plans;
    plans.add("disks[0]: disk", file.duplicate(), Format::QCOW2);
    ASSERT_EQ(::pwrite(file.get(), after.header().data(), 104, 0), 104);
    EXPECT_TRUE(plans.needSettling());
    EXPECT_EQ(plans.settle(), std::vector<std::string>{"disks[0]: disk: the image's header now plans " +
                                                       std::to_string(plans.largest() + 200'000) + " bytes, it was " +
                                                       std::to_string(plans.largest()) +
                                                       "; `qemu-img info` and `qemu-img check` tell why"});
  }
}

// A descriptor that cannot be looked at stands for a file system that is gone.
TEST(DiskPlans, diskThatCannotBeLookedAt_isTold_andTheOthersAreSettled) {
  Fd gone = newFile(kMiB);
  const int number = gone.get();
  const Fd grown = newFile(kMiB);
  DiskPlans plans;
  plans.add("disks[0]: gone", std::move(gone), Format::RAW);
  plans.add("disks[1]: grown", grown.duplicate(), Format::RAW);
  ASSERT_EQ(::ftruncate(grown.get(), 2 * kMiB), 0);
  ASSERT_EQ(::close(number), 0);
  EXPECT_TRUE(plans.needSettling());
  const std::vector<std::string> told = plans.settle();
  EXPECT_NE(::fcntl(grown.get(), F_DUPFD_CLOEXEC, number), -1);  // for the plan to close
  ASSERT_EQ(told.size(), 2u);
  EXPECT_EQ(told[0], "disks[0]: gone: at the VM's end, looking at a disk: Bad file descriptor");
  EXPECT_NE(told[1].find("cut back"), std::string::npos) << told[1];
  EXPECT_EQ(lengthOf(grown), kMiB);
}

}  // namespace
}  // namespace vmmhost::vm
