#include "host/plugin/launch_plan.h"

#include <sys/resource.h>

#include <functional>
#include <iterator>

#include "host/plugin/testing.h"
#include "tests/support/refusal.h"
#include "vmmhost/seccomp.h"

namespace vmmhost::plugin {
namespace {

using namespace testing;

class LaunchPlanTest : public ::testing::Test {
 protected:
  LaunchPlanTest() {
    write(root / "worker", "#!", 0755);
    plan.size = sizeof(plan);
    plan.worker = "worker";
  }

  Error refusal(const std::function<void(vmmhost_launch_plan&)>& change) {
    vmmhost_launch_plan changed = plan;
    change(changed);
    return errorOf([&] { copyLaunchPlan(changed, root.string()); });
  }
  // Refused as the plugin's fault, with a message that has `part` in it.
  void expectFault(const std::string& part, const std::function<void(vmmhost_launch_plan&)>& change) {
    const Error error = refusal(change);
    EXPECT_EQ(error.code(), ErrorCode::kInternal) << error.message();
    EXPECT_NE(error.message().find(part), std::string::npos) << error.message();
  }

  Folder folder;
  fs::path root = fs::canonical(folder.path());
  vmmhost_launch_plan plan = {};
};

TEST_F(LaunchPlanTest, leastPlan_hasTheDefaults) {
  const LaunchPlan copied = copyLaunchPlan(plan, root.string());
  EXPECT_EQ(copied.workerPath, (root / "worker").string());
  EXPECT_TRUE(copied.worker);
  EXPECT_EQ(copied.argv, std::vector<std::string>{"worker"});
  EXPECT_EQ(copied.root, LaunchPlan::Root::kEmpty);
  EXPECT_EQ(copied.seccompPolicy, "worker-static");
  EXPECT_FALSE(copied.proc || copied.dev || copied.tmp);
  EXPECT_EQ(copied.helloTimeout, std::chrono::seconds(5));
  EXPECT_EQ(copied.createTimeout, std::chrono::seconds(15));
}

TEST_F(LaunchPlanTest, relativeWorker_mayClimbButNotAboveTheRoot) {
  fs::create_directory(root / "plugins");
  plan.worker = ".././plugins//../worker";
  EXPECT_EQ(copyLaunchPlan(plan, (root / "plugins").string()).workerPath, (root / "worker").string());
  expectFault("above the root", [](auto& p) { p.worker = "../../../../../../../../../../etc/worker"; });
  expectFault("no file", [](auto& p) { p.worker = "bin/"; });
  expectFault("no file", [](auto& p) { p.worker = "/"; });
  expectFault("no file", [](auto& p) { p.worker = ""; });
  expectFault("no worker", [](auto& p) { p.worker = nullptr; });
}

TEST_F(LaunchPlanTest, worker_mustBeAnExecutableFileThatIsTrusted) {
  EXPECT_EQ(refusal([](auto& p) { p.worker = "missing"; }).code(), ErrorCode::kNotFound);
  write(root / "text", "x", 0644);
  EXPECT_EQ(refusal([](auto& p) { p.worker = "text"; }).code(), ErrorCode::kPermissionDenied);
  write(root / "open", "x", 0777);
  EXPECT_EQ(refusal([](auto& p) { p.worker = "open"; }).code(), ErrorCode::kConfinement);
  fs::create_symlink("worker", root / "link");
  EXPECT_EQ(refusal([](auto& p) { p.worker = "link"; }).code(), ErrorCode::kConfinement);
}

TEST_F(LaunchPlanTest, countsWithoutItems_areRefused) {
  expectFault("counts 3 arguments", [](auto& p) { p.argument_count = 3; });
  expectFault("counts 3 devices", [](auto& p) { p.device_count = 3; });
  expectFault("counts 3 resource limits", [](auto& p) { p.rlimit_count = 3; });
  expectFault("counts 3 binds", [](auto& p) { p.bind_count = 3, p.root = VMMHOST_ROOT_SYSTEM; });
}

TEST_F(LaunchPlanTest, hugeCounts_areRefusedBeforeAnythingIsRead) {
  const auto nowhere = [](auto*& pointer) { pointer = reinterpret_cast<std::decay_t<decltype(pointer)>>(8); };
  expectFault("4294967295 arguments", [&](auto& p) { p.argument_count = UINT32_MAX, nowhere(p.arguments); });
  expectFault("devices", [&](auto& p) { p.device_count = UINT32_MAX, nowhere(p.devices); });
  expectFault("limits", [&](auto& p) { p.rlimit_count = UINT32_MAX, nowhere(p.rlimits); });
  expectFault("binds", [&](auto& p) { p.bind_count = UINT32_MAX, nowhere(p.binds), p.root = VMMHOST_ROOT_SYSTEM; });
}

TEST_F(LaunchPlanTest, nullAndEndlessTexts_areRefused) {
  static const char* const null[] = {nullptr};
  expectFault("no argument", [](auto& p) { p.arguments = null, p.argument_count = 1; });
  static const std::string endless(5000, 'x');
  static const char* const tooLong[] = {endless.c_str()};
  expectFault("more than 4096 bytes", [](auto& p) { p.arguments = tooLong, p.argument_count = 1; });
  static const vmmhost_device device = {};
  expectFault("no device name", [](auto& p) { p.devices = &device, p.device_count = 1; });
  static const vmmhost_bind bind = {};
  expectFault("no bind source", [](auto& p) { p.binds = &bind, p.bind_count = 1, p.root = VMMHOST_ROOT_SYSTEM; });
}

TEST_F(LaunchPlanTest, bindsElsewhere_areRefused) {
  const auto withBind = [](const vmmhost_bind& bind) {
    return [&bind](vmmhost_launch_plan& p) {
      p.binds = &bind, p.bind_count = 1, p.root = VMMHOST_ROOT_SYSTEM, p.seccomp = "worker-system";
    };
  };
  for (const char* source : {"/etc", "/", "/usr/../etc", "/usr/./lib", "/usr//lib", "/usrx", "/opt/", "usr/lib",
                             "/run/docker.sock", "/var/lib/x"}) {
    const vmmhost_bind bind = {source, "/usr/x"};
    EXPECT_EQ(refusal(withBind(bind)).code(), ErrorCode::kInternal) << source;
  }
  for (const char* target : {"/proc", "/proc/x", "/dev/x", "/tmp", "/sys/x", "/", "x", "/a/../b"}) {
    const vmmhost_bind bind = {"/usr/share", target};
    EXPECT_EQ(refusal(withBind(bind)).code(), ErrorCode::kInternal) << target;
  }
  const vmmhost_bind good = {"/opt/backend", "/opt/backend"};
  vmmhost_launch_plan changed = plan;
  withBind(good)(changed);
  EXPECT_EQ(copyLaunchPlan(changed, root.string()).binds.at(0).source, "/opt/backend");
  changed.root = VMMHOST_ROOT_EMPTY;
  tests::expectRefusal("has binds, which an empty root has no place for",
                       [&] { copyLaunchPlan(changed, root.string()); });
  static const vmmhost_bind twice[] = {{"/usr/a", "/usr/x"}, {"/usr/b", "/usr/x"}};
  expectFault("twice", [](auto& p) { p.binds = twice, p.bind_count = 2, p.root = VMMHOST_ROOT_SYSTEM; });
}

TEST_F(LaunchPlanTest, devices_areBelowDevAndHaveNamesOfTheirOwn) {
  static const vmmhost_device elsewhere = {"disk", "/etc/shadow", 0, 0};
  expectFault("not below /dev", [](auto& p) { p.devices = &elsewhere, p.device_count = 1; });
  static const vmmhost_device climbing = {"disk", "/dev/../etc/shadow", 0, 0};
  expectFault("plain absolute path", [](auto& p) { p.devices = &climbing, p.device_count = 1; });
  static const vmmhost_device odd = {"K V M", "/dev/kvm", 0, 0};
  expectFault("[a-z0-9-]", [](auto& p) { p.devices = &odd, p.device_count = 1; });
  static const vmmhost_device twice[] = {{"kvm", "/dev/kvm", 0, 0}, {"kvm", "/dev/kvm", 0, 0}};
  expectFault("two devices", [](auto& p) { p.devices = twice, p.device_count = 2; });
}

// Of what it can execute nothing is to be there.
TEST_F(LaunchPlanTest, staticPolicy_isForAnEmptyRootWithoutProc) {
  for (const char* policy : {static_cast<const char*>(nullptr), "worker-static"}) {
    expectFault("a root with files", [&](auto& p) { p.seccomp = policy, p.root = VMMHOST_ROOT_SYSTEM; });
    plan.seccomp = policy;
    plan.flags = VMMHOST_PLAN_PROC;
    EXPECT_FALSE(copyLaunchPlan(plan, root.string()).proc);
  }
  plan.seccomp = "worker-dynamic";
  plan.root = VMMHOST_ROOT_SYSTEM;
  EXPECT_TRUE(copyLaunchPlan(plan, root.string()).proc);
}

TEST_F(LaunchPlanTest, staticPolicyOfAnOlderPlugin_hasAnEmptyRoot_whateverItAsksFor) {
  const vmmhost_bind bind = {"/opt/backend", "/opt/backend"};
  plan.root = VMMHOST_ROOT_SYSTEM;
  plan.flags = VMMHOST_PLAN_PROC | VMMHOST_PLAN_DEV | VMMHOST_PLAN_TMP;
  plan.binds = &bind;
  plan.bind_count = 1;
  const LaunchPlan copied = copyLaunchPlan(plan, root.string(), 0x10001);
  EXPECT_EQ(copied.root, LaunchPlan::Root::kEmpty);
  EXPECT_TRUE(copied.binds.empty());
  EXPECT_FALSE(copied.proc || copied.dev || copied.tmp);
  plan.seccomp = "worker-dynamic";
  EXPECT_EQ(copyLaunchPlan(plan, root.string(), 0x10001).binds.size(), 1u);
}

TEST_F(LaunchPlanTest, rings_areBounded_andNotForWorkersThatStartPrograms) {
  EXPECT_EQ(copyLaunchPlan(plan, root.string()).rings, 0u);
  plan.ring_count = 32;
  EXPECT_EQ(copyLaunchPlan(plan, root.string()).rings, 32u);
  expectFault("33 rings", [](auto& p) { p.ring_count = 33; });
  expectFault("rings", [](auto& p) { p.seccomp = "worker-system", p.root = VMMHOST_ROOT_SYSTEM; });
}

TEST_F(LaunchPlanTest, workersThatMakeEpollInstances_haveFewDescriptors) {
  const auto descriptors = [&](std::uint32_t epolls, std::uint32_t wanted, std::uint32_t abi = VMMHOST_PLUGIN_ABI) {
    plan.epoll_count = epolls;
    plan.max_descriptors = wanted;
    return copyLaunchPlan(plan, root.string(), abi).maxDescriptors;
  };
  EXPECT_EQ(descriptors(0, 0), 64u);
  EXPECT_EQ(descriptors(0, 4096), 64u);
  EXPECT_EQ(descriptors(1, 0), 256u);
  EXPECT_EQ(descriptors(1, 64), 64u);
  EXPECT_EQ(descriptors(128, 4096), 4096u);
  EXPECT_EQ(descriptors(0, 0, 0x10001), 256u) << "as it was";
}

TEST_F(LaunchPlanTest, epollInstancesAndDescriptors_areBounded) {
  expectFault("129 instances of epoll", [](auto& p) { p.epoll_count = 129; });
  expectFault("63 descriptors", [](auto& p) { p.max_descriptors = 63; });
  expectFault("4097 descriptors", [](auto& p) { p.max_descriptors = 4097; });
  expectFault("too few", [](auto& p) { p.epoll_count = 64, p.max_descriptors = 64; });
}

TEST_F(LaunchPlanTest, policyIsOld_forPluginsThatWereBuiltBeforeIt) {
  const auto isOld = [&](std::uint32_t abi) { return copyLaunchPlan(plan, root.string(), abi).hasOldPolicy; };
  EXPECT_TRUE(isOld(0x10000));
  EXPECT_TRUE(isOld(0x10001));
  EXPECT_FALSE(isOld(0x10002));
  EXPECT_FALSE(isOld(0x10003));
  EXPECT_FALSE(isOld(VMMHOST_PLUGIN_ABI));
}

TEST_F(LaunchPlanTest, grants_makeThePolicy_whereThereIsNoName) {
  plan.epoll_count = 1;
  plan.grants = VMMHOST_GRANT_KVM | VMMHOST_GRANT_DISKS;
  const LaunchPlan copied = copyLaunchPlan(plan, root.string());
  EXPECT_EQ(copied.seccompPolicy, seccomp::PolicyChoice::ofGrants(seccomp::grant::kKvm | seccomp::grant::kDisks));
  EXPECT_EQ(copied.seccompPolicy.describe(), "grants: kvm, disks");
  EXPECT_EQ(copied.maxDescriptors, 256u);
  for (const char* name : {"worker-static", "worker-system"}) {
    expectFault("grants and for the seccomp policy \"" + std::string(name), [&](auto& p) { p.seccomp = name; });
  }
}

TEST_F(LaunchPlanTest, grants_areThoseOfTheTable) {
  std::uint64_t all = 0;
  for (const seccomp::Grant& one : seccomp::grants()) {
    all |= one.bit;
  }
  constexpr std::uint64_t kNotTogether = VMMHOST_GRANT_RINGS | VMMHOST_GRANT_EPOLLS;
  plan.root = VMMHOST_ROOT_SYSTEM;
  plan.flags = VMMHOST_PLAN_TMP;
  plan.epoll_count = 1;
  plan.grants = all & ~kNotTogether;
  EXPECT_EQ(copyLaunchPlan(plan, root.string()).seccompPolicy.grants(), all & ~kNotTogether);
  expectFault("does not know: bit 13, bit 63", [](auto& p) { p.grants |= std::uint64_t{1} << 63 | 1u << 13; });
}

TEST_F(LaunchPlanTest, grantsThatMakeNoSense_areRefusedByName) {
  constexpr std::uint64_t kFiles = VMMHOST_GRANT_FILES;
  plan.epoll_count = 1;
  const auto with = [](std::uint64_t grants, std::uint32_t kind = VMMHOST_ROOT_EMPTY, std::uint32_t flags = 0) {
    return [=](vmmhost_launch_plan& p) { p.grants = grants, p.root = kind, p.flags = flags; };
  };
  expectFault("the grant files with an empty root", with(kFiles));
  expectFault("the grant loader with an empty root", with(VMMHOST_GRANT_LOADER));
  expectFault("the grant programs with an empty root", with(VMMHOST_GRANT_PROGRAMS));
  expectFault("a root with files without the grant files", with(VMMHOST_GRANT_LOADER, VMMHOST_ROOT_SYSTEM));
  expectFault("a /proc without the grant files", with(VMMHOST_GRANT_KVM, VMMHOST_ROOT_EMPTY, VMMHOST_PLAN_PROC));
  expectFault("a /tmp without the grant temporary-files", with(kFiles, VMMHOST_ROOT_SYSTEM, VMMHOST_PLAN_TMP));
  expectFault("temporary-files without a /tmp", with(kFiles | VMMHOST_GRANT_TEMPORARY_FILES, VMMHOST_ROOT_SYSTEM));
  expectFault("the grant rings but for no rings", with(VMMHOST_GRANT_RINGS));
  expectFault("rings without the grant rings", [](auto& p) { p.grants = VMMHOST_GRANT_KVM, p.ring_count = 1; });
  expectFault("the grant epolls and for instances", with(VMMHOST_GRANT_EPOLLS));
  expectFault("without the grant epolls", [](auto& p) { p.grants = VMMHOST_GRANT_KVM, p.epoll_count = 0; });
  expectFault("rings together with programs", [](auto& p) {
    p.grants = VMMHOST_GRANT_RINGS | VMMHOST_GRANT_PROGRAMS | kFiles, p.ring_count = 1, p.root = VMMHOST_ROOT_SYSTEM;
  });
  plan.grants = VMMHOST_GRANT_KVM;
  EXPECT_EQ(errorOf([&] { copyLaunchPlan(plan, root.string(), 0x10001); }).code(), ErrorCode::kInternal);
}

TEST_F(LaunchPlanTest, grantsWithFiles_keepTheirRoot) {
  static const vmmhost_bind bind = {"/opt/backend", "/opt/backend"};
  plan.root = VMMHOST_ROOT_SYSTEM;
  plan.flags = VMMHOST_PLAN_PROC | VMMHOST_PLAN_DEV;
  plan.binds = &bind;
  plan.bind_count = 1;
  plan.grants = VMMHOST_GRANT_FILES | VMMHOST_GRANT_LOADER | VMMHOST_GRANT_EPOLLS;
  const LaunchPlan copied = copyLaunchPlan(plan, root.string());
  EXPECT_EQ(copied.root, LaunchPlan::Root::kSystem);
  EXPECT_TRUE(copied.proc && copied.dev);
  EXPECT_EQ(copied.binds.size(), 1u);
  EXPECT_EQ(copied.maxDescriptors, 64u) << "who makes instances of epoll";
}

TEST_F(LaunchPlanTest, unknownChoices_areRefused) {
  expectFault("root", [](auto& p) { p.root = 2; });
  expectFault("flags", [](auto& p) { p.flags = 1u << 31; });
  expectFault("empty root", [](auto& p) { p.flags = VMMHOST_PLAN_TMP; });
  expectFault("empty root", [](auto& p) { p.flags = VMMHOST_PLAN_DEV; });
  expectFault("\"none\"", [](auto& p) { p.seccomp = "none"; });
  static const vmmhost_rlimit limit = {RLIM_NLIMITS, 0, 1};
  expectFault("does not exist", [](auto& p) { p.rlimits = &limit, p.rlimit_count = 1; });
  static const vmmhost_rlimit descriptors = {RLIMIT_NOFILE, 0, 65536};
  expectFault("limits itself", [](auto& p) { p.rlimits = &descriptors, p.rlimit_count = 1; });
  expectFault("processes", [](auto& p) { p.max_processes = UINT32_MAX; });
  expectFault("GiB", [](auto& p) { p.overhead_bytes = UINT64_MAX; });
  expectFault("hello", [](auto& p) { p.hello_timeout_ms = UINT64_MAX; });
  expectFault("create", [](auto& p) { p.create_timeout_ms = 600'001; });
}

}  // namespace
}  // namespace vmmhost::plugin
