#include "host/cli/verbs/verbs.h"

#include <gtest/gtest.h>

#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <variant>

namespace vmmhost::cli {
namespace {

TEST(AllVerbs, names_areDifferentWords) {
  std::set<std::string> names;
  for (const Verb* verb : allVerbs()) {
    EXPECT_TRUE(std::regex_match(verb->name, std::regex("[a-z]+"))) << verb->name;
    EXPECT_TRUE(names.insert(verb->name).second) << verb->name;
  }
  EXPECT_FALSE(names.empty());
}

TEST(AllVerbs, verbsAndWhatTheyTake_haveHelp) {
  for (const Verb* verb : allVerbs()) {
    EXPECT_STRNE(verb->help, "") << verb->name;
    const Usage usage = verb->usage();
    for (const auto* rows : {&usage.arguments, &usage.options}) {
      for (const Option& row : *rows) {
        EXPECT_STRNE(row.help, "") << verb->name << ' ' << row.names;
      }
    }
    EXPECT_TRUE(usage.carryOut) << verb->name;
  }
}

TEST(AllVerbs, optionsOfOneVerb_haveDifferentNamesAndPlaces) {
  const std::regex form("(-[a-z],)?--[a-z]+(-[a-z]+)*");
  for (const Verb* verb : allVerbs()) {
    const Usage usage = verb->usage();
    std::set<std::string> names = {"-h", "--help"};
    std::set<const void*> places;
    for (const Option& row : usage.arguments) {
      EXPECT_TRUE(std::regex_match(row.names, std::regex("[a-z]+"))) << verb->name << ' ' << row.names;
      EXPECT_TRUE(places.insert(std::visit([](auto* place) -> const void* { return place; }, row.place)).second);
    }
    for (const Option& row : usage.options) {
      EXPECT_TRUE(std::regex_match(row.names, form)) << verb->name << ' ' << row.names;
      EXPECT_TRUE(places.insert(std::visit([](auto* place) -> const void* { return place; }, row.place)).second)
          << verb->name << ' ' << row.names;
      std::istringstream list(row.names);
      for (std::string name; std::getline(list, name, ',');) {
        EXPECT_TRUE(names.insert(name).second) << verb->name << ' ' << name;
      }
    }
  }
}

// Help shows a value where there is one, and completion goes by the place.
TEST(AllVerbs, onlyFlags_haveNoValue) {
  for (const Verb* verb : allVerbs()) {
    const Usage usage = verb->usage();
    for (const Option& row : usage.options) {
      const bool isFlag = std::holds_alternative<bool*>(row.place);
      EXPECT_EQ(isFlag, std::string(row.value.name).empty()) << verb->name << ' ' << row.names;
    }
    for (const Option& row : usage.arguments) {
      EXPECT_FALSE(std::holds_alternative<bool*>(row.place)) << verb->name << ' ' << row.names;
      EXPECT_STRNE(row.value.name, "") << verb->name << ' ' << row.names;
    }
  }
}

}  // namespace
}  // namespace vmmhost::cli
