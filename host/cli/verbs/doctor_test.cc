#include "host/cli/verbs/doctor.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <string>

namespace vmmhost::cli {
namespace {

namespace fs = std::filesystem;

// The files of a machine that the checks look at.
class FakeRoot {
 public:
  FakeRoot() {
    std::string name = ::testing::TempDir() + "vmmhost-doctor-XXXXXX";
    path_ = ::mkdtemp(name.data());
  }
  ~FakeRoot() { fs::remove_all(path_); }
  FakeRoot(const FakeRoot&) = delete;
  FakeRoot& operator=(const FakeRoot&) = delete;
  void put(const std::string& name, const std::string& content) const {
    fs::create_directories(fs::path(path_ + name).parent_path());
    std::ofstream(path_ + name) << content;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST(Doctor, kvm_missingIsAWarningWithACommand) {
  const FakeRoot root;
  const Check missing = checkKvm(root.path());
  EXPECT_EQ(missing.status, Check::Status::kWarning);
  EXPECT_NE(missing.fix.find("modprobe"), std::string::npos);
  root.put("/dev/kvm", "");
  EXPECT_EQ(checkKvm(root.path()).status, Check::Status::kOk);
}

TEST(Doctor, userNamespaces_eachLockIsNamed) {
  const FakeRoot root;
  const auto check = [&](uid_t uid, int refusal = 0) { return checkUserNamespaces(root.path(), uid, refusal, false); };
  root.put("/proc/self/ns/user", "");
  root.put("/proc/sys/user/max_user_namespaces", "95000\n");
  EXPECT_EQ(check(1000).status, Check::Status::kOk);
  EXPECT_EQ(check(1000, ENOSPC).fix, "sudo sysctl user.max_user_namespaces=15000");
  root.put("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n");
  EXPECT_EQ(check(1000).fix, "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0");
  EXPECT_EQ(check(0).status, Check::Status::kOk);
  root.put("/proc/sys/kernel/unprivileged_userns_clone", "0\n");
  EXPECT_EQ(check(1000, EPERM).fix, "sudo sysctl kernel.unprivileged_userns_clone=1");
  root.put("/proc/sys/user/max_user_namespaces", "0\n");
  EXPECT_EQ(check(0, ENOSPC).fix, "sudo sysctl user.max_user_namespaces=15000");
}

TEST(Doctor, userNamespaces_refusedThoughNotSwitchedOff_isAProblemOfThePlace) {
  const FakeRoot root;
  root.put("/proc/self/ns/user", "");
  root.put("/proc/sys/user/max_user_namespaces", "95000\n");
  const Check changed = checkUserNamespaces(root.path(), 0, EPERM, true);
  EXPECT_EQ(changed.status, Check::Status::kProblem);
  EXPECT_EQ(changed.detail, "this process runs in a chroot, where the kernel allows no user namespaces");
  EXPECT_NE(changed.fix.find("pivot_root"), std::string::npos) << changed.fix;
  const Check refused = checkUserNamespaces(root.path(), 0, EPERM, false);
  EXPECT_EQ(refused.status, Check::Status::kProblem);
  EXPECT_NE(refused.detail.find("Operation not permitted"), std::string::npos) << refused.detail;
  EXPECT_NE(refused.fix.find("seccomp"), std::string::npos) << refused.fix;
}

TEST(Doctor, seccomp_needsToEndProcesses) {
  const FakeRoot root;
  EXPECT_EQ(checkSeccomp(root.path()).status, Check::Status::kProblem);
  root.put("/proc/sys/kernel/seccomp/actions_avail", "kill_thread trap errno trace log allow\n");
  EXPECT_EQ(checkSeccomp(root.path()).status, Check::Status::kProblem);
  root.put("/proc/sys/kernel/seccomp/actions_avail", "kill_process kill_thread trap errno allow\n");
  EXPECT_EQ(checkSeccomp(root.path()).status, Check::Status::kOk);
}

TEST(Doctor, cgroups_bothVersionsAreLookedAt) {
  const FakeRoot root;
  EXPECT_EQ(checkCgroups(root.path()).status, Check::Status::kWarning);
  root.put("/proc/self/cgroup", "5:memory:/user\n0::/here\n");
  root.put("/sys/fs/cgroup/memory/user/tasks", "");
  root.put("/sys/fs/cgroup/pids/tasks", "");
  EXPECT_NE(checkCgroups(root.path()).detail.find("version 1"), std::string::npos);
  root.put("/sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n");
  EXPECT_EQ(checkCgroups(root.path()).status, Check::Status::kWarning);  // its own group is not there
  root.put("/sys/fs/cgroup/here/cgroup.procs", "");
  EXPECT_NE(checkCgroups(root.path()).detail.find("version 2"), std::string::npos);
  EXPECT_EQ(checkCgroups(root.path()).status, Check::Status::kOk);
}

TEST(Doctor, qemu_isLookedForInPath) {
  const FakeRoot root;
  EXPECT_EQ(checkQemu(root.path() + "/a:" + root.path() + "/b").status, Check::Status::kWarning);
  EXPECT_EQ(checkQemu("").status, Check::Status::kWarning);
  root.put("/b/qemu-system-x86_64", "");
  EXPECT_EQ(checkQemu(root.path() + "/a:" + root.path() + "/b").status, Check::Status::kWarning);
  fs::permissions(root.path() + "/b/qemu-system-x86_64", fs::perms::owner_all);
  EXPECT_EQ(checkQemu(root.path() + "/a:" + root.path() + "/b").detail, root.path() + "/b/qemu-system-x86_64");
}

}  // namespace
}  // namespace vmmhost::cli
