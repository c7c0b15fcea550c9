#include "host/cli/completion.h"

#include <gtest/gtest.h>

namespace vmmhost::cli {
namespace {

TEST(BashCompletion, kindsOfValues_haveTheirOwnCompletion) {
  CommandTree tree;
  tree.verbs.push_back({"run", {{{"-f", "--file"}, "FILE"}, {{"--json"}, ""}}, ""});
  tree.verbs.push_back({"stop", {}, "LIVE"});
  const std::string script = bashCompletion(tree);
  EXPECT_NE(script.find("-f|--file) compopt -o filenames"), std::string::npos) << script;
  EXPECT_NE(script.find("compgen -W \"-f --file --json\""), std::string::npos) << script;
  EXPECT_EQ(script.find("--json)"), std::string::npos) << "a flag without a value completes nothing after it";
  EXPECT_NE(script.find("vmmhost completion live-vms"), std::string::npos) << script;
}

}  // namespace
}  // namespace vmmhost::cli
