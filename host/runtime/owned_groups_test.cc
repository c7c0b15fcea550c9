#include "host/runtime/owned_groups.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "host/runtime/testing.h"

namespace vmmhost::runtime {
namespace {

using namespace testing;

class OwnedGroupsTest : public RuntimeTest {
 protected:
  // Version 1's and version 2's places, where this caller may make groups.
  OwnedGroupsTest() {
    for (const char* hierarchy : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"}) {
      const fs::path path = fs::path(hierarchy) / ("vmmhost-owned-" + std::to_string(::getpid()));
      if (fs::exists(fs::path(hierarchy) / "cgroup.procs") && ::mkdir(path.c_str(), 0755) == 0) {
        cgroups.push_back(path.string());
      }
    }
  }
  ~OwnedGroupsTest() override {
    for (const std::string& cgroup : cgroups) {
      ::rmdir(cgroup.c_str());
    }
  }

  std::set<std::string> files() const {
    std::set<std::string> names;
    std::error_code missing;
    for (const auto& entry : fs::directory_iterator(run(kOwnedFolder), missing)) {
      names.insert(entry.path().filename());
    }
    return names;
  }
  bool areThere() const {
    return std::all_of(cgroups.begin(), cgroups.end(), [](const std::string& path) { return fs::exists(path); });
  }

  std::vector<std::string> cgroups;
};

TEST_F(OwnedGroupsTest, eachVmHasAFile_untilItGoes) {
  {
    const OwnedGroups one = OwnedGroups::take(directories.runtimeFd());
    const OwnedGroups other = OwnedGroups::take(directories.runtimeFd());
    EXPECT_EQ(files().size(), 2u);
  }
  EXPECT_EQ(files(), std::set<std::string>{});
}

TEST_F(OwnedGroupsTest, fileOfADeadProgramOfTheSameNumber_isKept) {
  fs::create_directory(run(kOwnedFolder));
  fs::permissions(run(kOwnedFolder), fs::perms::owner_all);
  const std::string name = std::to_string(::getpid()) + "-0";
  write(run(kOwnedFolder) / name, "cgroup=/sys/fs/cgroup/vmmhost-x\n");
  const OwnedGroups groups = OwnedGroups::take(directories.runtimeFd());
  EXPECT_EQ(files().size(), 2u);
  EXPECT_EQ(read(run(kOwnedFolder) / name), "cgroup=/sys/fs/cgroup/vmmhost-x\n");
}

TEST_F(OwnedGroupsTest, ofALivingProgram_stay) {
  OwnedGroups groups = OwnedGroups::take(directories.runtimeFd());
  groups.write(cgroups);
  sweepOwnedGroups(directories.runtimeFd());
  EXPECT_TRUE(areThere());
  EXPECT_EQ(files().size(), 1u);
}

TEST_F(OwnedGroupsTest, ofADeadProgram_areRemovedByWhoeverOpensTheFoldersNext) {
  if (cgroups.empty()) {
    GTEST_SKIP() << "no cgroup can be made here";
  }
  Process program([&] {
    OwnedGroups groups = OwnedGroups::take(directories.runtimeFd());
    groups.write({"/sys/fs/cgroup/vmmhost-not-made"});
    groups.write(cgroups);
    return groups;
  });
  ASSERT_EQ(program.answer(), 'x');
  program.end(SIGKILL);
  EXPECT_TRUE(areThere());
  EXPECT_EQ(files().size(), 1u);
  Directories::open(directories.paths());
  EXPECT_EQ(files(), std::set<std::string>{});
  for (const std::string& cgroup : cgroups) {
    EXPECT_FALSE(fs::exists(cgroup)) << cgroup;
  }
}

TEST_F(OwnedGroupsTest, filesThatSayNothing_goAndDoNoHarm) {
  const OwnedGroups made = OwnedGroups::take(directories.runtimeFd());
  write(run(kOwnedFolder) / "garbage", "cgroup=/etc\nnonsense");
  write(run(kOwnedFolder) / "foreign", "cgroup=" + root.string() + "\n");
  sweepOwnedGroups(directories.runtimeFd());
  EXPECT_EQ(files().size(), 1u);
  EXPECT_TRUE(fs::exists(root));
}

}  // namespace
}  // namespace vmmhost::runtime
