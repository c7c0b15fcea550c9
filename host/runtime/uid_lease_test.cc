#include <fcntl.h>

#include <cstdint>
#include <ios>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "host/runtime/testing.h"
#include "host/runtime/uid_sweep.h"

namespace vmmhost::runtime {
namespace {

using namespace testing;

class UidLeaseTest : public RuntimeTest {
 protected:
  std::size_t files() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(fs::path(folder) / kUidFolder), fs::directory_iterator()));
  }

  const std::string folder = (root / "leases").string();
};

TEST_F(UidLeaseTest, leases_differAndAreInTheirRange) {
  std::set<uid_t> uids;
  std::vector<UidLease> leases;
  for (int count = 0; count < 100; ++count) {
    leases.push_back(UidLease::take(folder));
    uids.insert(leases.back().uid());
    EXPECT_GE(leases.back().uid(), UidLease::kFirstUid);
    EXPECT_LT(leases.back().uid(), UidLease::kFirstUid + UidLease::kCount);
  }
  EXPECT_EQ(uids.size(), 100u);
  leases.clear();
  EXPECT_EQ(files(), 0u);
}

// An id that a container of systemd-nspawn has too would be a process of that container's to send signals to.
TEST(UidLeaseRange, meetsNoneOfSystemds) {
  constexpr std::uint64_t kFirst = UidLease::kFirstUid;
  constexpr std::uint64_t kLast = kFirst + UidLease::kCount - 1;
  for (const auto& [first, last] : {std::pair<std::uint64_t, std::uint64_t>{0, 65535},  // the system, people, nobody
                                    {0x80000, 0x6fffffff},                              // containers
                                    {0x7ffe0000, 0x7ffeffff},                           // foreign ids
                                    {0x80000000, 0xffffffff}}) {                        // negative to some programs
    EXPECT_TRUE(kLast < first || kFirst > last) << std::hex << kFirst << " is within " << first << " to " << last;
  }
}

TEST_F(UidLeaseTest, assignedLease_givesTheOldOneBack) {
  UidLease lease = UidLease::take(folder);
  lease = UidLease::take(folder);
  EXPECT_EQ(files(), 1u);
}

TEST_F(UidLeaseTest, leasesOfOtherProcesses_areNotTaken) {
  Process other([&] {
    std::vector<UidLease> held;
    for (uid_t count = 0; count < 64; ++count) {
      held.push_back(UidLease::take(folder));
    }
    return held;
  });
  ASSERT_EQ(other.answer(), 'x');
  std::set<uid_t> theirs;
  for (const auto& entry : fs::directory_iterator(fs::path(folder) / kUidFolder)) {
    theirs.insert(UidLease::kFirstUid + static_cast<uid_t>(std::stoul(entry.path().filename())));
  }
  ASSERT_EQ(theirs.size(), 64u);
  sweepUidLeases(folder);
  EXPECT_EQ(files(), 64u);
  // Many times, since each begins somewhere else.
  for (int count = 0; count < 2000; ++count) {
    EXPECT_EQ(theirs.count(UidLease::take(folder).uid()), 0u);
  }
  other.end(SIGKILL);
  EXPECT_EQ(files(), 64u);
  sweepUidLeases(folder);
  EXPECT_EQ(files(), 0u);
}

TEST_F(UidLeaseTest, folderThatOthersCanWrite_isRefused) {
  fs::create_directory(folder);
  fs::permissions(folder, fs::perms::all);
  const Error error = errorOf([&] { UidLease::take(folder); });
  EXPECT_EQ(error.code(), ErrorCode::kConfinement);
  EXPECT_NE(error.message().find(folder), std::string::npos) << error.message();
}

TEST_F(UidLeaseTest, folderOfTheMachine_isTheSameForEveryRuntimeFolder) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "only root's VMs have user ids of their own";
  }
  ::setenv("VMMHOST_RUNTIME_DIR", (root / "elsewhere").c_str(), 1);
  const UidLease lease = UidLease::take();
  ::unsetenv("VMMHOST_RUNTIME_DIR");
  const fs::path file = fs::path("/run/vmmhost") / kUidFolder / std::to_string(lease.uid() - UidLease::kFirstUid);
  EXPECT_TRUE(fs::exists(file)) << file;
  sweepUidLeases();
  EXPECT_TRUE(fs::exists(file)) << file;
}

}  // namespace
}  // namespace vmmhost::runtime
