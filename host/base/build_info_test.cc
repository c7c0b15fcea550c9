#include "host/base/build_info.h"

#include <gtest/gtest.h>

#include <string>

namespace vmmhost {
namespace {

TEST(BuildInfo, sameText_isTheSame) {
  EXPECT_EQ(compareBuilds(kBuild), BuildAge::kSame);
  EXPECT_EQ(compareBuilds("anything", "anything"), BuildAge::kSame);
}

TEST(BuildInfo, lowerNumber_isOlder) {
  for (const char* theirs : {"vmmhost 0.10.1", "vmmhost 0.9.2", "vmmhost 0.10", "vmmhost 0", "vmmhost 0.10.1-5 (debug)",
                             "vmmhost 00.010.001"}) {
    EXPECT_EQ(compareBuilds(theirs, "vmmhost 0.10.2"), BuildAge::kOlder) << theirs;
  }
}

TEST(BuildInfo, notTold_isOlder) {
  EXPECT_EQ(compareBuilds(""), BuildAge::kOlder);
}

TEST(BuildInfo, newerAndIncomparable_areOther) {
  for (const char* theirs :
       {"vmmhost 0.10.3", "vmmhost 0.11", "vmmhost 1", "vmmhost 0.10.2.1", "vmmhost 0.10.2-5", "vmmhost 0.10.2.0",
        "vmmhost of then", "vmmhost", "vmmhost ", "vmmhost .1", "else 0.1.0", " 0.1.0", "0.1.0", "\xff"}) {
    EXPECT_EQ(compareBuilds(theirs, "vmmhost 0.10.2"), BuildAge::kOther) << theirs;
  }
}

TEST(BuildInfo, numbersOfAnyLength_areCompared) {
  const std::string large(40, '9');
  EXPECT_EQ(compareBuilds("vmmhost 0." + large, "vmmhost 0.1" + large), BuildAge::kOlder);
  EXPECT_EQ(compareBuilds("vmmhost 0.1" + large, "vmmhost 0." + large), BuildAge::kOther);
}

}  // namespace
}  // namespace vmmhost
