// Runs a VM for each attack and looks at what becomes of it from outside. With VMMHOST_HOSTILE_RESULTS set, each result
// is added to that file: attack, moment, user, what was seen, separated by tabs.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <set>
#include <string>
#include <tuple>

#include "tests/hostile/attack.h"
#include "tests/hostile/command.h"

namespace vmmhost::hostile {
namespace {

struct Group {
  const char* name;
  std::span<const Attack> (*attacks)();
};

constexpr Group kGroups[] = {{"files", fileAttacks},   {"sockets", socketAttacks}, {"processes", processAttacks},
                             {"kernel", kernelAttacks}, {"memory", memoryAttacks},  {"loot", lootAttacks}};

std::string fateText(const Attack& attack) {
  switch (attack.fate) {
    case Fate::kKilled:
      return "ended by SIGSYS";
    case Fate::kErrno:
      return "attack " + std::string(attack.name) + ": errno " + std::to_string(attack.errnoValue);
    default:
      return "attack " + std::string(attack.name) + ": succeeded";
  }
}

void record(const Attack& attack, Moment moment, User user, const std::string& seen) {
  if (const char* path = std::getenv("VMMHOST_HOSTILE_RESULTS")) {
    std::ofstream(path, std::ios::app) << attack.name << '\t' << momentName(moment) << '\t'
                                       << (user == User::kOrdinary || ::geteuid() != 0 ? "user" : "root") << '\t' << seen
                                       << '\n';
  }
}

class Attacks : public ::testing::TestWithParam<std::tuple<Group, Moment, User>> {};

TEST_P(Attacks, endAsPlanned_andHarmNothing) {
  const auto& [group, moment, user] = GetParam();
  if (user == User::kOrdinary && !whyNotOrdinary().empty()) {
    GTEST_SKIP() << whyNotOrdinary();
  }
  for (const Attack& attack : group.attacks()) {
    if (attack.needsLoot && moment != Moment::kStart && moment != Moment::kThread) {
      continue;
    }
    Surroundings surroundings(user);
    const auto result = surroundings.run(attack, moment);
    const bool isAsPlanned = result.output.find(fateText(attack) + (attack.fate == Fate::kKilled ? "" : "\"")) !=
                             std::string::npos;
    const bool hasRightCode = attack.fate == Fate::kKilled ? result.exitCode != 0 : result.exitCode == 0;
    const std::string damage = surroundings.damage(attack, moment);
    EXPECT_TRUE(isAsPlanned) << attack.name << ": expected \"" << fateText(attack) << "\", got\n" << result.output;
    EXPECT_TRUE(hasRightCode) << attack.name << ": exit code " << result.exitCode;
    EXPECT_EQ(damage, "") << attack.name;
    record(attack, moment, user, isAsPlanned && damage.empty() ? fateText(attack) : "NOT AS PLANNED " + damage);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Hostile, Attacks,
    ::testing::Combine(::testing::ValuesIn(kGroups),
                       ::testing::Values(Moment::kConstructor, Moment::kConfirm, Moment::kStart, Moment::kThread),
                       ::testing::Values(User::kCaller, User::kOrdinary)),
    [](const auto& info) {
      const auto& [group, moment, user] = info.param;
      return std::string(group.name) + "_" + momentName(moment) + "_" +
             (user == User::kOrdinary ? "asOrdinaryUser" : "asCaller");
    });

TEST(AttackList, names_areUniqueAndFound) {
  std::set<std::string> names;
  for (const Attack& attack : allAttacks()) {
    EXPECT_TRUE(names.insert(attack.name).second) << attack.name;
    EXPECT_EQ(findAttack(attack.name)->run, attack.run);
  }
  EXPECT_GE(names.size(), 60u);
  EXPECT_EQ(findAttack("nothing"), nullptr);
}

}  // namespace
}  // namespace vmmhost::hostile
