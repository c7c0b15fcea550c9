#include "worker-kvm/virtio/balloon/pages.h"

#include <gtest/gtest.h>

namespace vmmhost::kvm::virtio::balloon {
namespace {

using memory::GuestMemory;
using memory::Range;

// Two regions with a hole between them, and one that follows the second without one.
class BalloonPagesTest : public ::testing::Test {
 protected:
  BalloonPagesTest() {
    for (const Range& range : {Range{0, 16 * kPageBytes}, Range{32 * kPageBytes, 8 * kPageBytes},
                               Range{40 * kPageBytes, 8 * kPageBytes + 100}}) {
      regions_.push_back({range, {}, {}});
    }
  }
  std::vector<Range> ranges(std::vector<std::uint32_t> numbers) {
    std::vector<Range> found;
    outside_ = toRanges(numbers, regions_, found);
    for (Range& range : found) {
      range.start /= kPageBytes;
      range.bytes /= kPageBytes;
    }
    return found;
  }

  std::vector<GuestMemory::Region> regions_;
  std::size_t outside_ = 0;
};

TEST_F(BalloonPagesTest, neighbours_becomeOneRange_inWhicheverOrder) {
  EXPECT_EQ(ranges({3, 1, 2, 0, 7}), (std::vector<Range>{{0, 4}, {7, 1}}));
  EXPECT_EQ(outside_, 0u);
  EXPECT_EQ(ranges({}), std::vector<Range>{});
}

TEST_F(BalloonPagesTest, pageNamedAgain_countsOnce) {
  EXPECT_EQ(ranges({5, 5, 5, 6, 5}), (std::vector<Range>{{5, 2}}));
}

TEST_F(BalloonPagesTest, pagesOutsideMemory_areLeftOut) {
  EXPECT_EQ(ranges({15, 16, 17, 31, 32}), (std::vector<Range>{{15, 1}, {32, 1}}));
  EXPECT_EQ(outside_, 3u);
  EXPECT_EQ(ranges({0xffffffff, 0x80000000, 48, 49}), std::vector<Range>{});  // 48 is there in part only
  EXPECT_EQ(outside_, 4u);
}

TEST_F(BalloonPagesTest, noRange_spansRegions) {
  EXPECT_EQ(ranges({39, 40, 41}), (std::vector<Range>{{39, 1}, {40, 2}}));
}

}  // namespace
}  // namespace vmmhost::kvm::virtio::balloon
