#include "host/runtime/cgroup_removal.h"

#include <fcntl.h>
#include <sys/wait.h>

#include "host/runtime/record.h"
#include "host/runtime/testing.h"

namespace vmmhost::runtime {
namespace {

using namespace testing;

// Runs in each hierarchy that the machine has and lets the caller write: version 1's pids and version 2.
class CgroupRemovalTest : public RuntimeTest {
 protected:
  CgroupRemovalTest() {
    for (const char* hierarchy :
         {"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/freezer"}) {
      const fs::path path = fs::path(hierarchy) / ("vmmhost-test-" + std::to_string(::getpid()));
      if (fs::exists(fs::path(hierarchy) / "cgroup.procs") && ::mkdir(path.c_str(), 0755) == 0) {
        cgroups.push_back(path);
      }
    }
  }
  ~CgroupRemovalTest() override {
    for (const fs::path& cgroup : cgroups) {
      removeCgroup(cgroup.string());
    }
  }

  // A process that is a member and ignores what it can.
  static pid_t member(const fs::path& cgroup) {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const pid_t pid = ::fork();
    if (pid == 0) {
      ::signal(SIGTERM, SIG_IGN);
      std::ofstream(cgroup / "cgroup.procs") << ::getpid() << std::flush;
      (void)!::write(ends[1], "x", 1);
      while (true) {
        ::pause();
      }
    }
    ::close(ends[1]);
    char byte;
    EXPECT_EQ(::read(ends[0], &byte, 1), 1);
    ::close(ends[0]);
    return pid;
  }

  std::vector<fs::path> cgroups;
};

TEST_F(CgroupRemovalTest, membersAreKilled_andTheFolderGoes) {
  if (cgroups.empty()) {
    GTEST_SKIP() << "no cgroup can be made here";
  }
  for (const fs::path& cgroup : cgroups) {
    std::vector<pid_t> pids;
    for (int count = 0; count < 5; ++count) {
      pids.push_back(member(cgroup));
    }
    ::kill(pids[0], SIGSTOP);
    EXPECT_EQ(removeCgroup(cgroup.string()), CgroupRemoval::kGone) << cgroup;
    EXPECT_FALSE(fs::exists(cgroup));
    EXPECT_EQ(removeCgroup(cgroup.string()), CgroupRemoval::kGone);
    for (const pid_t pid : pids) {
      int status = 0;
      ::waitpid(pid, &status, 0);
      EXPECT_TRUE(WIFSIGNALED(status));
    }
  }
}

TEST_F(CgroupRemovalTest, cgroupWithAnotherInside_isBusyAndStays) {
  if (cgroups.empty()) {
    GTEST_SKIP() << "no cgroup can be made here";
  }
  ASSERT_EQ(::mkdir((cgroups[0] / "inner").c_str(), 0755), 0);
  EXPECT_EQ(removeCgroup(cgroups[0].string()), CgroupRemoval::kBusy);
  EXPECT_EQ(removeCgroup((cgroups[0] / "inner").string()), CgroupRemoval::kGone);
}

TEST_F(CgroupRemovalTest, pathsThatAreNotOurs_areNeverTouched) {
  fs::create_directory(root / "vmmhost");
  for (const std::string& path :
       {std::string("/sys/fs/cgroup"), std::string("/sys/fs/cgroup/"), std::string("/sys/fs/cgroup/pids"),
        std::string("/sys/fs/cgroup/xvmmhost"), std::string("/sys/fs/cgroup/vmmhost/../pids"),
        std::string("/sys/fs/cgroup/./vmmhost"), std::string("/sys/fs/cgroup//vmmhost"), std::string(),
        std::string("vmmhost"), (root / "vmmhost").string(), "/sys/fs/cgroup/vmmhost" + std::string(5000, 'x')}) {
    EXPECT_EQ(removeCgroup(path), CgroupRemoval::kRefused) << path;
  }
  EXPECT_TRUE(fs::exists(root / "vmmhost"));
}

TEST_F(CgroupRemovalTest, deadSupervisorsCgroup_goesWithItsEntry) {
  if (cgroups.empty()) {
    GTEST_SKIP() << "no cgroup can be made here";
  }
  Process supervisor([&] {
    Reservation reservation = Reservation::take(directories, vmName("vm"));
    Record record;
    record.cgroups = {"/sys/fs/cgroup/pids", cgroups[0].string()};
    reservation.writeRecord(record);
    return reservation;
  });
  const pid_t worker = member(cgroups[0]);
  supervisor.end(SIGKILL);
  EXPECT_TRUE(list(directories, Kind::kVm).empty());
  EXPECT_FALSE(fs::exists(cgroups[0]));
  EXPECT_FALSE(fs::exists(run("vm")));
  int status = 0;
  ::waitpid(worker, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));
}

TEST_F(CgroupRemovalTest, cgroupThatStays_keepsTheRecordForTheNextTry) {
  if (cgroups.empty()) {
    GTEST_SKIP() << "no cgroup can be made here";
  }
  ASSERT_EQ(::mkdir((cgroups[0] / "inner").c_str(), 0755), 0);
  {
    Process supervisor([&] {
      Reservation reservation = Reservation::take(directories, vmName("vm"));
      Record record;
      record.cgroups = {cgroups[0].string()};
      reservation.writeRecord(record);
      reservation.writeState("config.json", "{}");
      return reservation;
    });
  }
  EXPECT_FALSE(list(directories, Kind::kVm).at(0).alive);
  EXPECT_TRUE(fs::exists(run("vm") / kRecordFile));
  EXPECT_EQ(errorOf([&] { Reservation::take(directories, vmName("vm")); }).code(), ErrorCode::kFailedPrecondition);
  ASSERT_EQ(::rmdir((cgroups[0] / "inner").c_str()), 0);
  EXPECT_FALSE(list(directories, Kind::kVm).at(0).alive);
  EXPECT_FALSE(fs::exists(run("vm")));
  EXPECT_FALSE(fs::exists(cgroups[0]));
}

}  // namespace
}  // namespace vmmhost::runtime
