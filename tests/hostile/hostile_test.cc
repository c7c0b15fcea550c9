// Runs a VM for each attack and looks at what becomes of it from outside. With VMMHOST_HOSTILE_RESULTS set, each result
// is added to that file: attack, moment, user, what was seen, separated by tabs.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string>
#include <tuple>

#include "tests/hostile/attack.h"
#include "tests/hostile/command.h"

namespace vmmhost::hostile {

// GoogleTest finds these by the namespace of their argument.
void PrintTo(Moment moment, std::ostream* out) {
  *out << momentName(moment);
}
void PrintTo(User user, std::ostream* out) {
  *out << (user == User::kOrdinary ? "ordinary user" : "caller");
}

namespace {

struct Group {
  const char* name;
  std::span<const Attack> (*attacks)();
};

constexpr Group kGroups[] = {{"files", fileAttacks},    {"sockets", socketAttacks}, {"processes", processAttacks},
                             {"kernel", kernelAttacks}, {"memory", memoryAttacks},  {"loot", lootAttacks}};

std::string fateText(const Attack& attack) {
  switch (attack.fate) {
    case Fate::kKilled:
      return "ended by SIGSYS";
    case Fate::kErrno:
      return "attack " + std::string(attack.name) + ": errno " + std::to_string(attack.errnoValue) + "\"";
    case Fate::kRefused:
      return "the worker is not confined as its backend declared";
    default:
      return "attack " + std::string(attack.name) + ": succeeded\"";
  }
}

void record(const Attack& attack, Moment moment, User user, std::string seen) {
  seen.erase(std::remove(seen.begin(), seen.end(), '"'), seen.end());
  if (const char* path = std::getenv("VMMHOST_HOSTILE_RESULTS")) {
    std::ofstream(path, std::ios::app) << attack.name << '\t' << momentName(moment) << '\t'
                                       << (user == User::kOrdinary || ::geteuid() != 0 ? "user" : "root") << '\t'
                                       << seen << '\n';
  }
}

bool isTime(const Attack& attack, Moment moment) {
  switch (attack.when) {
    case When::kConstructor:
      return moment == Moment::kConstructor;
    case When::kHolding:
      return moment == Moment::kStart || moment == Moment::kThread;
    default:
      return true;
  }
}

void PrintTo(const Group& group, std::ostream* out) {
  *out << group.name;
}

class Attacks : public ::testing::TestWithParam<std::tuple<Group, Moment, User>> {};

TEST_P(Attacks, endAsPlanned_andHarmNothing) {
  const auto& [group, moment, user] = GetParam();
  if (user == User::kOrdinary && !whyNotOrdinary().empty()) {
    GTEST_SKIP() << whyNotOrdinary();
  }
  int attacks = 0;
  for (const Attack& attack : group.attacks()) {
    if (!isTime(attack, moment)) {
      continue;
    }
    ++attacks;
    Surroundings surroundings(user);
    const auto result = surroundings.run(attack, moment);
    const bool isAsPlanned = result.output.find(fateText(attack)) != std::string::npos;
    const bool isStopped = attack.fate == Fate::kKilled || attack.fate == Fate::kRefused;
    const bool hasRightCode = isStopped ? result.exitCode != 0 : result.exitCode == 0;
    const std::string damage = surroundings.damage(attack, moment);
    EXPECT_TRUE(isAsPlanned) << attack.name << ": expected \"" << fateText(attack) << "\", got\n" << result.output;
    EXPECT_TRUE(hasRightCode) << attack.name << ": exit code " << result.exitCode;
    EXPECT_EQ(damage, "") << attack.name;
    record(attack, moment, user, isAsPlanned && damage.empty() ? fateText(attack) : "NOT AS PLANNED " + damage);
  }
  if (attacks == 0) {
    GTEST_SKIP() << "these need what the worker is handed later";
  }
}

std::string caseName(const ::testing::TestParamInfo<std::tuple<Group, Moment, User>>& info) {
  const auto& [group, moment, user] = info.param;
  return std::string(group.name) + "_" + momentName(moment) + "_" +
         (user == User::kOrdinary ? "asOrdinaryUser" : "asCaller");
}

constexpr Moment kMoments[] = {Moment::kConstructor, Moment::kConfirm, Moment::kStart, Moment::kThread};
constexpr User kUsers[] = {User::kCaller, User::kOrdinary};

INSTANTIATE_TEST_SUITE_P(Hostile, Attacks,
                         ::testing::Combine(::testing::ValuesIn(kGroups), ::testing::ValuesIn(kMoments),
                                            ::testing::ValuesIn(kUsers)),
                         caseName);

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
