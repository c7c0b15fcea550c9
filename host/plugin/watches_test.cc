#include "host/plugin/watches.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <optional>
#include <string>

#include "vmmhost/error.h"

namespace vmmhost::plugin {
namespace {

LaunchPlan planOf(std::uint32_t epolls, std::uint32_t descriptors, std::uint32_t rings = 0) {
  LaunchPlan plan;
  plan.epolls = epolls;
  plan.maxDescriptors = descriptors;
  plan.rings = rings;
  return plan;
}

TEST(WatchesTest, furtherDescriptors_areAsManyAsAnEighthOfTheWatchesAllows) {
  EXPECT_EQ(furtherDescriptors(planOf(3, 256), 4096, 1'000'000), 4096u);
  EXPECT_EQ(furtherDescriptors(planOf(10, 256), 4096, 8 * 10 * 1000), 1000u - 256u);
  EXPECT_EQ(furtherDescriptors(planOf(10, 256, 32), 4096, 8 * 10 * 1000), 1000u - 288u);
  EXPECT_EQ(furtherDescriptors(planOf(10, 256), 4096, 8 * 10 * 256), 0u);
  EXPECT_EQ(furtherDescriptors(planOf(3, 256), 0, 1'000'000), 0u);
}

TEST(WatchesTest, planThatIsTooMuch_isRefusedWithWhatMendsIt) {
  try {
    furtherDescriptors(planOf(10, 256), 0, 8 * 10 * 256 - 1);
    FAIL() << "was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
    EXPECT_NE(error.message().find("2560 watches of epoll"), std::string::npos) << error.message();
    EXPECT_NE(error.message().find("fs.epoll.max_user_watches is 20479"), std::string::npos) << error.message();
    EXPECT_EQ(error.hint().find("sudo sysctl fs.epoll.max_user_watches=20480,"), 0u) << error.hint();
  }
}

// A worker that makes its instances itself has few descriptors.
TEST(WatchesTest, withoutInstancesOrWithoutALimit_thereIsNoBound) {
  EXPECT_EQ(furtherDescriptors(planOf(0, 256), 4096, 8), 4096u);
  EXPECT_EQ(furtherDescriptors(planOf(128, 4096), 4096, std::nullopt), 4096u);
}

TEST(WatchesTest, kernelSaysHowManyThereAre) {
  const std::optional<std::uint64_t> watches = watchesOfAUser();
  EXPECT_EQ(watches.has_value(), ::access("/proc/sys/fs/epoll/max_user_watches", R_OK) == 0);
  EXPECT_GT(watches.value_or(1001), 1000u);
}

}  // namespace
}  // namespace vmmhost::plugin
