#include "host/config/mac.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

namespace vmmhost::config {
namespace {

TEST(Mac, derivedAddress_staysTheSameForEver) {
  EXPECT_EQ(deriveMac("web", 0), "d6:95:75:cc:20:8d");
  EXPECT_EQ(deriveMac("web", 1), "b6:d4:a1:a1:8e:5c");
}

TEST(Mac, derivedAddresses_areLocal_andDiffer) {
  std::set<std::string> seen;
  for (int vm = 0; vm < 1000; ++vm) {
    for (std::uint32_t card = 0; card < 4; ++card) {
      const std::string mac = deriveMac("vm" + std::to_string(vm), card);
      EXPECT_EQ(std::strtoul(mac.substr(0, 2).c_str(), nullptr, 16) & 3, 2u) << mac;
      EXPECT_TRUE(seen.insert(mac).second) << mac;
    }
  }
}

}  // namespace
}  // namespace vmmhost::config
