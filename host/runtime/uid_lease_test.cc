#include <fcntl.h>

#include <memory>
#include <set>
#include <vector>

#include "host/runtime/testing.h"
#include "host/runtime/uid_sweep.h"

namespace vmmhost::runtime {
namespace {

using namespace testing;

class UidLeaseTest : public RuntimeTest {
 protected:
  std::size_t files() const {
    const fs::path folder = root / "run" / kUidFolder;
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
  }
};

TEST_F(UidLeaseTest, leases_differAndAreInTheirRange) {
  std::set<uid_t> uids;
  std::vector<UidLease> leases;
  for (int count = 0; count < 100; ++count) {
    leases.push_back(UidLease::take(directories));
    uids.insert(leases.back().uid());
    EXPECT_GE(leases.back().uid(), UidLease::kFirstUid);
    EXPECT_LT(leases.back().uid(), UidLease::kFirstUid + UidLease::kCount);
  }
  EXPECT_EQ(uids.size(), 100u);
  leases.clear();
  EXPECT_EQ(files(), 0u);
}

TEST_F(UidLeaseTest, assignedLease_givesTheOldOneBack) {
  UidLease lease = UidLease::take(directories);
  lease = UidLease::take(directories);
  EXPECT_EQ(files(), 1u);
}

TEST_F(UidLeaseTest, leasesOfOtherProcesses_areNotTaken) {
  Process other([&] {
    std::vector<UidLease> held;
    for (uid_t count = 0; count < 64; ++count) {
      held.push_back(UidLease::take(directories));
    }
    return held;
  });
  ASSERT_EQ(other.answer(), 'x');
  std::set<uid_t> theirs;
  for (const auto& entry : fs::directory_iterator(root / "run" / kUidFolder)) {
    theirs.insert(UidLease::kFirstUid + static_cast<uid_t>(std::stoul(entry.path().filename())));
  }
  ASSERT_EQ(theirs.size(), 64u);
  sweepUidLeases(directories);
  EXPECT_EQ(files(), 64u);
  // Many times, since each begins somewhere else.
  for (int count = 0; count < 2000; ++count) {
    EXPECT_EQ(theirs.count(UidLease::take(directories).uid()), 0u);
  }
  other.end(SIGKILL);
  EXPECT_EQ(files(), 64u);
  sweepUidLeases(directories);
  EXPECT_EQ(files(), 0u);
}

}  // namespace
}  // namespace vmmhost::runtime
