#include <gtest/gtest.h>

#include <initializer_list>
#include <utility>

#include "ipc/jail/confinement/proc_reader.h"

namespace vmmhost::confinement {
namespace {

TEST(ParseStatus, fields_areRead) {
  const ThreadStatus status = parseStatus(
      "Name:\tx\nPPid:\t7\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t4 24 \nCapInh:\t0000000000000000\n"
      "CapBnd:\t000001ffffffffff\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n");
  EXPECT_EQ(status.parent, 7u);
  ASSERT_TRUE(status.uids && status.gids);
  EXPECT_EQ((*status.uids)[3], 4u);
  EXPECT_EQ((*status.gids)[0], 5u);
  EXPECT_EQ(status.groups, 2u);
  EXPECT_EQ(status.capabilities[0], 0u);
  EXPECT_EQ(status.capabilities[3], 0x1ffffffffffu);
  EXPECT_FALSE(status.capabilities[4]);
  EXPECT_EQ(status.noNewPrivileges, 1u);
  EXPECT_EQ(status.seccomp, 2u);
  EXPECT_EQ(status.seccompFilters, 3u);
}

TEST(ParseStatus, nameThatLooksLikeFields_changesNothing) {
  // The kernel escapes line ends in names.
  const ThreadStatus status = parseStatus("Name:\ta\\nSeccomp:\t2\nSeccomp:\t0\n");
  EXPECT_EQ(status.seccomp, 0u);
}

TEST(ParseStatus, malformedFields_areLeftOut) {
  for (const char* text : {"", ":", "\n\n", "Seccomp", "Seccomp:", "Seccomp:\tx", "Seccomp:\t-2", "Seccomp:\t2 3",
                           "Uid:\t1\t2\t3", "Uid:\t1\t2\tx\t4", "CapBnd:\t1ffffffffffffffff0"}) {
    const ThreadStatus status = parseStatus(text);
    EXPECT_FALSE(status.seccomp) << text;
    EXPECT_FALSE(status.uids) << text;
    EXPECT_FALSE(status.capabilities[3]) << text;
  }
  EXPECT_EQ(parseStatus("Groups:\t\n").groups, 0u);
}

TEST(ParseStatus, processThatHasEnded_isToldApart) {
  EXPECT_TRUE(parseStatus("Name:\tZ\nState:\tZ (zombie)\n").isZombie);
  EXPECT_FALSE(parseStatus("Name:\tZ\nState:\tS (sleeping)\n").isZombie);
}

TEST(ParseNumbers, whatIsNoNumber_isLeftOut) {
  EXPECT_EQ(parseNumbers("12 7 x 99999999999 -1 3 "), (std::vector<int>{12, 7, 3}));
  EXPECT_TRUE(parseNumbers("").empty());
}

TEST(ParseMountinfo, lines_areRead) {
  const auto mounts = parseMountinfo(
      "36 35 98:0 / / ro,nosuid - tmpfs none rw\n"
      "37 36 8:1 /usr /usr\\040x rw,relatime shared:1 master:2 - ext4 /dev/sda1 ro\n");
  ASSERT_EQ(mounts.size(), 2u);
  EXPECT_EQ(mounts[0].target, "/");
  EXPECT_EQ(mounts[0].type, "tmpfs");
  EXPECT_TRUE(mounts[0].readOnly);
  EXPECT_TRUE(mounts[0].noSetuid);
  EXPECT_FALSE(mounts[0].noDevices);
  EXPECT_TRUE(parseMountinfo("1 2 3 4 / rw,nodev,noexec - tmpfs").at(0).noDevices);
  EXPECT_TRUE(parseMountinfo("1 2 3 4 / rw,nodev,noexec - tmpfs").at(0).noExecution);
  EXPECT_EQ(mounts[1].target, "/usr x");
  EXPECT_EQ(mounts[1].type, "ext4");
  EXPECT_FALSE(mounts[1].readOnly);  // of this mount, not of the file system
}

TEST(ParseMountinfo, malformedLines_neverCountAsReadOnlyRoots) {
  // How many mounts are in each line, and that "ro" has to be an option of its own.
  for (const auto& [text, count] :
       std::initializer_list<std::pair<const char*, std::size_t>>{{"", 0},
                                                                  {"\n", 0},
                                                                  {"1 2", 0},
                                                                  {"1 2 3 4 /", 1},
                                                                  {"1 2 3 4 / rox", 1},
                                                                  {"1 2 3 4 / xro,nosuid - tmpfs", 1}}) {
    const auto mounts = parseMountinfo(text);
    EXPECT_EQ(mounts.size(), count) << text;
    for (const Mount& mount : mounts) {
      EXPECT_FALSE(mount.readOnly) << text;
    }
  }
  EXPECT_TRUE(parseMountinfo("1 2 3 4 / ro - tmpfs").at(0).readOnly);
}

}  // namespace
}  // namespace vmmhost::confinement
