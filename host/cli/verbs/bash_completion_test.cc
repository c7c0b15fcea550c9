#include "host/cli/verbs/bash_completion.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

namespace vmmhost::cli {
namespace {

Usage runUsage() {
  static std::optional<std::string> file;
  static bool json;
  return {.options = {{"-f,--file", kFile, "", &file}, {"--json", kFlag, "", &json}}};
}

Usage stopUsage() {
  static std::string name;
  return {.arguments = {{"name", kLiveVm, "", &name}}};
}

TEST(BashCompletion, kindsOfValues_haveTheirOwnCompletion) {
  const Verb run = {"run", "", runUsage};
  const Verb stop = {"stop", "", stopUsage};
  const Verb* const verbs[] = {&run, &stop};
  const std::string script = bashCompletion(verbs);
  EXPECT_NE(script.find("compgen -W \"run stop --help --version\""), std::string::npos) << script;
  EXPECT_NE(script.find("-f|--file) compopt -o filenames"), std::string::npos) << script;
  EXPECT_NE(script.find("compgen -W \"-h --help -f --file --json\""), std::string::npos) << script;
  EXPECT_EQ(script.find("--json)"), std::string::npos) << "a flag without a value completes nothing after it";
  EXPECT_NE(script.find("vmmhost completion live-vms"), std::string::npos) << script;
}

}  // namespace
}  // namespace vmmhost::cli
