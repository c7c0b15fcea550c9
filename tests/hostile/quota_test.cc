// VMs of one user that take all they can of what the kernel counts by user or by machine, and what is left for others.
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <optional>
#include <string>
#include <tuple>

#include "tests/hostile/attack.h"
#include "tests/hostile/command.h"

namespace vmmhost::hostile {
namespace {

// Huge pages of the machine, for as long as it lives.
class HugePages {
 public:
  static constexpr long kCount = 32;
  HugePages() : before_(read("/proc/sys/vm/nr_hugepages")) {
    if (before_ >= 0) {
      std::ofstream("/proc/sys/vm/nr_hugepages") << before_ + kCount;
    }
  }
  ~HugePages() {
    if (before_ >= 0) {
      std::ofstream("/proc/sys/vm/nr_hugepages") << before_;
    }
  }
  HugePages(const HugePages&) = delete;
  HugePages& operator=(const HugePages&) = delete;

  long left() const { return read("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"); }

 private:
  static long read(const char* path) {
    long value = -1;
    std::ifstream(path) >> value;
    return value;
  }
  long before_;
};

// As the caller with control groups where there are any and without, as an ordinary user mostly without.
class Quotas : public ::testing::TestWithParam<std::tuple<User, Jail>> {};

TEST_P(Quotas, vmsThatTakeAllTheyCan_leaveTheirUserEnough) {
  const auto [user, jail] = GetParam();
  if (const std::string why = whyNot(user); !why.empty()) {
    GTEST_SKIP() << why;
  }
  ASSERT_FALSE(user == User::kWithoutGroups && hasControlGroups(user));
  std::optional<HugePages> huge;
  if (::geteuid() == 0) {
    huge.emplace();
  }
  const long hugePages = huge ? huge->left() : 0;
  // A machine whose memory is in pieces has none to give, and then nobody can take any.
  const bool hasHugePages = hugePages >= HugePages::kCount;
  const Neighbour greedy(user, "take-everything", jail);
  ASSERT_TRUE(greedy.answers());
  const Neighbour alsoGreedy(user, "take-everything", jail);
  ASSERT_TRUE(alsoGreedy.answers());
  const Neighbour another(user, "neighbour", jail);
  EXPECT_TRUE(another.answers());
  if (hasHugePages) {
    EXPECT_EQ(huge->left(), hugePages) << "while two VMs have taken all that they can";
  }
  EXPECT_TRUE(greedy.answers() && alsoGreedy.answers()) << "one of them got what nobody is to have";
  EXPECT_EQ(another.stop(), "");
  EXPECT_EQ(greedy.stop(), "");
  EXPECT_EQ(alsoGreedy.stop(), "");
}

INSTANTIATE_TEST_SUITE_P(Hostile, Quotas,
                         ::testing::Combine(::testing::Values(User::kCaller, User::kOrdinary, User::kWithoutGroups),
                                            ::testing::Values(Jail::kStatic, Jail::kSystem)),
                         [](const auto& info) {
                           return std::string(jailName(std::get<1>(info.param))) + "_" +
                                  userSuffix(std::get<0>(info.param));
                         });

}  // namespace
}  // namespace vmmhost::hostile
