// From a table to the parser, with a verb that has one of each kind.
#include "host/cli/command_line.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "vmmhost/error.h"

namespace vmmhost::cli {
namespace {

using Words = std::vector<std::string>;

struct TryOptions {
  std::string name;
  Words rest;
  std::optional<std::string> text;
  std::string replaced = "before";
  Words repeated;
  Words words;
  bool flag = false;
  bool json = false;
};

TryOptions found;    // what the command line said
int usagesMade = 0;  // of verbs that were not asked for as well

Usage tryUsage() {
  ++usagesMade;
  found = {};
  return {
      .arguments = {{"name", kLiveVm, "One word", &found.name, Presence::kRequired},
                    {"rest", kVm, "More words", &found.rest}},
      .options = {{"-t,--text", kFile, "A text", &found.text},
                  {"--replaced", {"TEXT"}, "Another text", &found.replaced},
                  {"--repeated", {"ITEM"}, "Once for each", &found.repeated},
                  {"--words", {"PART"}, "Several", &found.words, Presence::kOptional, List::kWords},
                  {"-f,--flag", kFlag, "A flag", &found.flag},
                  {"--json", kFlag, "As JSON", &found.json}},
      .notes = "Notes below.",
      .carryOut = []() { return 42; },
  };
}

Usage failUsage() {
  ++usagesMade;
  return {.options = {{"--json", kFlag, "As JSON", &found.json}},
          .carryOut = []() -> int { throw Error(ErrorCode::kNotFound, "nothing is there", "look elsewhere"); }};
}

struct Answer {
  int code = -1;
  std::string out;
  std::string err;
};

Answer ask(const Words& words) {
  static const Verb kTry = {"try", "Try a table", tryUsage};
  static const Verb kFail = {"fail", "Fail", failUsage};
  static const Verb* const kVerbs[] = {&kTry, &kFail};
  std::vector<const char*> argv = {"vmmhost"};
  for (const std::string& word : words) {
    argv.push_back(word.c_str());
  }
  found = {};
  usagesMade = 0;
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  Answer answer;
  answer.code = runCommandLine(kVerbs, static_cast<int>(argv.size()), argv.data());
  answer.out = ::testing::internal::GetCapturedStdout();
  answer.err = ::testing::internal::GetCapturedStderr();
  return answer;
}

TEST(CommandLine, values_goToTheirPlaces) {
  const Answer answer = ask({"try", "web", "-t", "a", "--replaced=b", "--repeated", "c", "d", "--repeated=e,f", "-f"});
  EXPECT_EQ(answer.code, 42) << answer.err;
  EXPECT_EQ(found.name, "web");
  EXPECT_EQ(found.rest, Words{"d"}) << "a repeated option takes one word";
  EXPECT_EQ(found.text, "a");
  EXPECT_EQ(found.replaced, "b");
  EXPECT_EQ(found.repeated, (Words{"c", "e,f"}));
  EXPECT_EQ(found.words, Words{});
  EXPECT_TRUE(found.flag);
  EXPECT_FALSE(found.json);
}

TEST(CommandLine, listOfWords_takesCommasAndWords) {
  EXPECT_EQ(ask({"try", "web", "--words", "a,b", "c", "--flag"}).code, 42);
  EXPECT_EQ(found.words, (Words{"a", "b", "c"}));
  EXPECT_TRUE(found.flag);
}

TEST(CommandLine, whatIsNotGiven_staysAsItWas) {
  EXPECT_EQ(ask({"try", "web"}).code, 42);
  EXPECT_EQ(found.text, std::nullopt);
  EXPECT_EQ(found.replaced, "before");
  EXPECT_FALSE(found.flag);
}

TEST(CommandLine, wordsBehindTwoDashes_areArguments) {
  EXPECT_EQ(ask({"try", "--", "--flag", "--text="}).code, 42);
  EXPECT_EQ(found.name, "--flag");
  EXPECT_EQ(found.rest, Words{"--text="});
}

TEST(CommandLine, wrongUsage_isNamedWithAHint) {
  const std::string hint = "\nhint: `vmmhost try --help` shows what there is\n";
  EXPECT_EQ(ask({"try"}).err, "vmmhost: an argument is missing: name" + hint);
  EXPECT_EQ(ask({"try", "web", "--text"}).err, "vmmhost: --text: its value is missing" + hint);
  EXPECT_EQ(ask({"try", "web", "-t", "a", "-t", "b"}).err, "vmmhost: --text: can be given only once" + hint);
  EXPECT_EQ(ask({"try", "web", "--tex=a"}).err, "vmmhost: not understood: --tex=a" + hint);
  const std::string general = "\nhint: `vmmhost --help` shows what there is\n";
  EXPECT_EQ(ask({"nosuch"}).err, "vmmhost: there is no verb \"nosuch\"" + general);
  EXPECT_EQ(ask({}).err, "vmmhost: a verb is missing" + general);
  EXPECT_EQ(ask({"--", "try", "web"}).code, 125) << "the verb has to come first";
}

TEST(CommandLine, help_showsTheTable) {
  const Answer answer = ask({"try", "--help"});
  EXPECT_EQ(answer.code, 0);
  EXPECT_EQ(answer.out,
            "Try a table\n"
            "Usage: vmmhost try [OPTIONS] name [rest...]\n"
            "\n"
            "Positionals:\n"
            "  name LIVE REQUIRED          One word\n"
            "  rest NAME ...               More words\n"
            "\n"
            "Options:\n"
            "  -h,--help                   Print this help message and exit\n"
            "  -t,--text FILE              A text\n"
            "  --replaced TEXT             Another text\n"
            "  --repeated ITEM ...         Once for each\n"
            "  --words PART ...            Several\n"
            "  -f,--flag                   A flag\n"
            "  --json                      As JSON\n"
            "\n"
            "Notes below.\n");
}

TEST(CommandLine, onlyTheVerbThatIsAskedFor_isMade) {
  ask({"--help"});
  EXPECT_EQ(usagesMade, 0);
  ask({"fail"});
  EXPECT_EQ(usagesMade, 1);
}

TEST(CommandLine, whatAVerbThrows_isReported) {
  const Answer text = ask({"fail"});
  EXPECT_EQ(text.code, 127);
  EXPECT_EQ(text.err, "vmmhost: nothing is there\nhint: look elsewhere\n");
  const Answer json = ask({"fail", "--json"});
  EXPECT_EQ(json.code, 127);
  EXPECT_EQ(json.err, "");
  EXPECT_NE(json.out.find("\"notFound\""), std::string::npos) << json.out;
}

}  // namespace
}  // namespace vmmhost::cli
