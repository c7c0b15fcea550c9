// Looks at real processes: confined, and confined but for one part. Every case runs as the caller and, when that is
// root, in a child that has become an ordinary user as well.
#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <string>

#include "ipc/jail/confinement/test_process.h"
#include "tests/support/built.h"
#include "vmmhost/confinement.h"
#include "vmmhost/rings.h"

namespace vmmhost::confinement {
namespace {

constexpr unsigned kOrdinaryUser = 1000;

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) {
    text += line + "\n";
  }
  return text;
}

using Adjust = std::function<void(Expectation&)>;

// The violations found of a process in this jail, one a line.
std::string violationsOf(const Jail& jail, const Adjust& adjust = {}) {
  const TestProcess process(jail);
  if (!process.isReady()) {
    return "the test process did not start\n";
  }
  Expectation expected = process.expectation();
  if (adjust) {
    adjust(expected);
  }
  return joined(verify(expected).violations);
}

// The same, found by an ordinary user.
std::string violationsAsOrdinaryUser(const Jail& jail, const Adjust& adjust = {}) {
  // Opened while this is still root: the folder that it lies in may be closed to others.
  const Fd executable(::open(tests::built("bin/confinement-target").c_str(), O_RDONLY | O_CLOEXEC));
  Jail opened = jail;
  opened.executable = executable.get();
  int ends[2];
  EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  Fd reader(ends[0]);
  Fd writer(ends[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setgroups(0, nullptr) != 0 || ::setresgid(kOrdinaryUser, kOrdinaryUser, kOrdinaryUser) != 0 ||
        ::setresuid(kOrdinaryUser, kOrdinaryUser, kOrdinaryUser) != 0 || ::prctl(PR_SET_DUMPABLE, 1) != 0) {
      ::_exit(1);
    }
    const std::string text = violationsOf(opened, adjust);
    ::_exit(::write(writer.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : 1);
  }
  writer.reset();
  std::string text;
  char block[512];
  for (ssize_t got = 0; (got = ::read(reader.get(), block, sizeof block)) > 0;) {
    text.append(block, static_cast<std::size_t>(got));
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  return text;
}

// One violation, and it has `what` in it.
void expectOnly(const std::string& violations, const std::string& what, const char* who) {
  const auto lines = std::count(violations.begin(), violations.end(), '\n');
  EXPECT_EQ(lines, 1) << who << ": " << violations;
  EXPECT_NE(violations.find(what), std::string::npos) << who << ": " << violations;
}

void expectOnlyAsBoth(const Jail& jail, const std::string& what, const Adjust& adjust = {}) {
  expectOnly(violationsOf(jail, adjust), what, "caller");
  if (::geteuid() == 0) {
    expectOnly(violationsAsOrdinaryUser(jail, adjust), what, "ordinary user");
  }
}

void expectNoneAsBoth(const Jail& jail, const Adjust& adjust = {}) {
  EXPECT_EQ(violationsOf(jail, adjust), "");
  if (::geteuid() == 0) {
    EXPECT_EQ(violationsAsOrdinaryUser(jail, adjust), "");
  }
}

TEST(Verify, confinedProcess_hasNoViolations) {
  expectNoneAsBoth({});
  const TestProcess process({});
  ASSERT_TRUE(process.isReady());
  const Report report = verify(process.expectation());
  const std::string text = joined(report.verified);
  for (const char* part : {"namespaces", "ids", "seccomp: filter on 1 of 1", "privileges", "capabilities", "executable",
                           "root", "descriptors"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
  }
}

TEST(Verify, nonDumpableProcess_isStillSeenAndToldApart) {
  const auto wanted = [](Expectation& expected) {
    expected.nonDumpable = true;
    expected.descriptors.reset();  // an ordinary user can no longer list them
  };
  expectNoneAsBoth({{}, {"non-dumpable"}}, wanted);
  expectOnlyAsBoth({}, "it is dumpable", wanted);
}

TEST(Verify, namespaceOfTheHost_isNamed) {
  for (const char* name : {"pid", "net", "ipc", "uts", "cgroup"}) {
    expectOnlyAsBoth({{name}}, std::string("the ") + name + " namespace is that of the host");
  }
}

TEST(Verify, namespacesOfTheHost_areThoseThatItIsTold) {
  const auto linkOf = [](const std::string& process, const std::string& name) {
    return std::filesystem::read_symlink("/proc/" + process + "/ns/" + name).string();
  };
  const Namespaces own = hostNamespaces();
  ASSERT_EQ(own.size(), 7u);
  for (const auto& [name, link] : own) {
    EXPECT_EQ(link, linkOf("self", name));
  }
  EXPECT_EQ(violationsOf({}, [&](Expectation& expected) { expected.hostNamespaces = own; }), "");
  expectOnly(violationsOf({{"net"}}, [&](Expectation& expected) { expected.hostNamespaces = own; }),
             "the net namespace is that of the host", "root");
  expectOnly(violationsOf({},
                          [&](Expectation& expected) {
                            expected.hostNamespaces = {{"ipc", linkOf(std::to_string(expected.pid), "ipc")}};
                          }),
             "the ipc namespace is that of the host", "root");
}

TEST(Verify, userNamespaceOfTheHost_isNamed) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "an ordinary user has no other way to the other namespaces";
  }
  expectOnly(violationsOf({{"user"}}), "the user namespace is that of the host", "root");
}

TEST(Verify, mountNamespaceOfTheHost_isNamed) {
  expectOnlyAsBoth({{"mnt"}}, "the mnt namespace is that of the host",
                   [](Expectation& expected) { expected.rootIsReadOnly = false; });
}

TEST(Verify, rootOfTheHost_isNotAnEmptyOne) {
  EXPECT_NE(violationsOf({{"mnt"}}).find("unplanned mount"), std::string::npos);
}

TEST(Verify, writableRoot_isNamed) {
  expectOnlyAsBoth({{"read-only"}}, "the root is writable");
}

TEST(Verify, mounts_areExactlyThePlannedOnes) {
  const auto planned = [](Expectation& expected) { expected.mounts = {{"/usr", "", true}}; };
  Jail bound;
  bound.bindUsr = true;
  expectNoneAsBoth(bound, planned);
  expectOnlyAsBoth(bound, "unplanned mount at /usr");
  expectOnlyAsBoth({}, "the mount /usr is missing", planned);
  expectOnlyAsBoth(bound, "the mount /usr is a ", [](Expectation& expected) {
    expected.mounts = {{"/usr", "nosuchfs", true}};
  });
  bound.bindIsWritable = true;
  expectOnlyAsBoth(bound, "the mount /usr is writable", planned);
}

TEST(Verify, flagsOfMounts_areAskedForOneByOne) {
  Jail bound;
  bound.bindUsr = true;
  const auto with = [](bool ExpectedMount::*flag) {
    return [flag](Expectation& expected) {
      expected.mounts = {{"/usr", "", true}};
      expected.mounts[0].*flag = true;
    };
  };
  expectOnlyAsBoth(bound, "the mount /usr is not nosuid", with(&ExpectedMount::noSetuid));
  expectOnlyAsBoth(bound, "the mount /usr is not nodev", with(&ExpectedMount::noDevices));
  expectOnlyAsBoth(bound, "the mount /usr is not noexec", with(&ExpectedMount::noExecution));
}

TEST(Verify, writableMount_isWritableOnPurposeOnly) {
  const auto writable = [](Expectation& expected) {
    expected.mounts = {{"/usr", "", false}};
    expected.mounts[0].writable = true;
  };
  Jail bound;
  bound.bindUsr = true;
  expectOnlyAsBoth(bound, "the mount /usr is read-only, planned was a writable one", writable);
  bound.bindIsWritable = true;
  expectNoneAsBoth(bound, writable);
}

TEST(Verify, namespaceKeptOnPurpose_isThatOfTheHost) {
  const auto kept = [](Expectation& expected) {
    expected.newNamespaces = {"user", "mnt", "pid", "ipc", "uts", "cgroup"};
    expected.keptNamespaces = {"net"};
  };
  expectNoneAsBoth({{"net"}}, kept);
  expectOnlyAsBoth({}, ", expected that of the host", kept);
}

TEST(Verify, joinedNamespace_isExactlyThatOne) {
  const Fd own(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  const std::string name = namespaceOf(own.get());
  EXPECT_EQ(name, std::filesystem::read_symlink("/proc/self/ns/net").string());
  EXPECT_EQ(namespaceOf(-1), "");
  const Fd none(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(namespaceOf(none.get()), "");
  const auto joined = [name](Expectation& expected) {
    expected.newNamespaces = {"user"};
    expected.joinedNamespaces = {{"net", name}};
  };
  expectNoneAsBoth({{"net"}}, joined);
  expectOnlyAsBoth({}, ", expected the one to be joined (" + name + ")", joined);
}

TEST(Verify, parentOfTheUserNamespace_isLookedAt) {
  const std::string own = std::filesystem::read_symlink("/proc/self/ns/user").string();
  expectNoneAsBoth({}, [&](Expectation& expected) { expected.userNamespaceParent = own; });
  expectOnlyAsBoth({}, "its user namespace lies below " + own + ", expected user:[1]",
                   [](Expectation& expected) { expected.userNamespaceParent = "user:[1]"; });
}

TEST(Verify, missingFilter_isNamed) {
  expectOnlyAsBoth({{"seccomp"}}, "Seccomp is 0, expected 2");
}

TEST(Verify, threadOlderThanTheFilter_isFound) {
  expectOnlyAsBoth({{"seccomp"}, {"thread", "filter"}}, "Seccomp is 0, expected 2");
  expectNoneAsBoth({{"seccomp"}, {"filter", "thread"}});
}

TEST(Verify, tooFewFilters_areNamed) {
  const auto two = [](Expectation& expected) { expected.minimumFilters = 2; };
  expectOnlyAsBoth({}, "1 seccomp filters, expected at least 2", two);
  expectNoneAsBoth({{}, {"filter"}}, two);
}

TEST(Verify, newPrivileges_areNamed) {
  expectOnlyAsBoth({{"no-new-privs"}}, "NoNewPrivs is 0, expected 1");
}

TEST(Verify, capabilities_areNamedWithTheirSet) {
  expectOnlyAsBoth({{"bounding"}}, "CapBnd is 0");
  expectOnlyAsBoth({{"inheritable"}}, "CapInh is 0000000000002000");
}

TEST(Verify, otherIds_areNamed) {
  expectOnlyAsBoth({}, "its user ids are ", [](Expectation& expected) { ++expected.hostUid; });
  expectOnlyAsBoth({}, "its group ids are ", [](Expectation& expected) { ++expected.hostGid; });
}

TEST(Verify, supplementaryGroupsOfRoot_areNamed) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "only root can take them away";
  }
  const gid_t group = 4;
  std::vector<gid_t> before(64);
  before.resize(static_cast<std::size_t>(::getgroups(static_cast<int>(before.size()), before.data())));
  ASSERT_EQ(::setgroups(1, &group), 0);
  const std::string violations = violationsOf({{"groups"}});
  ASSERT_EQ(::setgroups(before.size(), before.data()), 0);
  expectOnly(violations, "supplementary groups", "root");
}

TEST(Verify, otherExecutable_isNamed) {
  expectOnlyAsBoth({}, "its executable is file", [](Expectation& expected) { ++expected.executableInode; });
}

TEST(Verify, descriptorBeyondNeed_isNamed) {
  expectOnlyAsBoth({{}, {"descriptor"}}, "its descriptors are 0 2 3, expected 2 3");
  expectOnlyAsBoth({}, "its descriptors are 2 3, expected 2 3 4", [](Expectation& expected) {
    expected.descriptors = std::vector<int>{4, 3, 2};
  });
}

TEST(Verify, rings_areAllowedWhereTheyBelong_andNothingElseThere) {
  const auto oneRing = [](Expectation& expected) {
    expected.firstRing = 4;
    expected.rings = 1;
  };
  expectNoneAsBoth({}, oneRing);  // fewer than expected: the system offers none
  expectOnlyAsBoth({{}, {"file-as-ring"}}, "its descriptors are 2 3 4, expected 2 3", oneRing);
  if (!rings::make().descriptor) {
    GTEST_SKIP() << "this system offers no io_uring";
  }
  expectNoneAsBoth({{}, {"ring"}}, oneRing);
  expectOnlyAsBoth({{}, {"ring"}}, "its descriptors are 2 3 4, expected 2 3");
  expectOnlyAsBoth({{}, {"ring"}}, "its descriptors are 2 3 4, expected 2 3", [](Expectation& expected) {
    expected.firstRing = 5;
    expected.rings = 1;
  });
}

TEST(Verify, descendants_areHeldToTheSame) {
  const auto all = [](Expectation& expected) { expected.includeDescendants = true; };
  expectNoneAsBoth({{}, {"child", "child"}}, all);
  expectOnlyAsBoth({{"seccomp"}, {"child", "filter"}}, "Seccomp is 0, expected 2", all);
  expectNoneAsBoth({{"seccomp"}, {"child", "filter"}});  // not asked for
}

TEST(Verify, programsOfDescendants_areThePlannedOnes) {
  const auto planned = [](Expectation& expected) {
    expected.includeDescendants = true;
    expected.programs = {{1, 1}};
  };
  expectNoneAsBoth({{}, {"child"}}, planned);  // the executable itself, before it executes another
  const TestProcess process({{}, {"child"}});
  ASSERT_TRUE(process.isReady());
  Expectation expected = process.expectation();
  planned(expected);
  std::swap(expected.programs[0].inode, expected.executableInode);
  const auto violations = joined(verify(expected).violations);
  EXPECT_NE(violations.find("which is none of the planned programs"), std::string::npos) << violations;
  expected.programs[0].device = expected.executableDevice;
  EXPECT_EQ(joined(verify(expected).violations).find("none of the planned programs"), std::string::npos);
}

TEST(Verify, threadsThatComeAndGo_endTheLookAllTheSame) {
  const TestProcess process({{}, {"churn"}});
  ASSERT_TRUE(process.isReady());
  for (int i = 0; i < 20; ++i) {
    for (const std::string& violation : verify(process.expectation()).violations) {
      EXPECT_EQ(violation, "its threads keep changing");
    }
  }
}

TEST(Verify, processThatIsGone_isAViolation) {
  TestProcess process({});
  ASSERT_TRUE(process.isReady());
  const Expectation expected = process.expectation();
  process.kill();
  const auto violations = verify(expected).violations;
  ASSERT_EQ(violations.size(), 1u);
  EXPECT_EQ(violations[0],
            "the process cannot be looked at: /proc/" + std::to_string(expected.pid) + ": No such file or directory");
}

TEST(Verify, unconfinedProcess_violatesEverything) {
  Expectation expected;
  expected.pid = ::getpid();
  expected.hostUid = 12345;
  expected.hostGid = 12345;
  expected.executableInode = 1;
  expected.newNamespaces = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"};
  expected.descriptors = std::vector<int>{99};
  const std::string violations = joined(verify(expected).violations);
  for (const char* part : {"user namespace", "mnt namespace", "pid namespace", "net namespace", "ipc namespace",
                           "uts namespace", "cgroup namespace", "user ids", "group ids", "Seccomp is 0", "NoNewPrivs",
                           "CapBnd", "executable", "the root", "descriptors"}) {
    EXPECT_NE(violations.find(part), std::string::npos) << part << " in\n" << violations;
  }
}

}  // namespace
}  // namespace vmmhost::confinement
