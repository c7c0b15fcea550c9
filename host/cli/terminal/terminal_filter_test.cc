#include "host/cli/terminal/terminal_filter.h"

#include <gtest/gtest.h>

namespace vmmhost::cli {
namespace {

TEST(TerminalFilter, linesAndTabsPass_escapesDoNot) {
  TerminalFilter filter;
  EXPECT_EQ(filter.feed("a\r\n\tb\x1b]0;title\x07\n"), "a\r\n\tb\\x1b]0;title\\x07\n");
}

TEST(TerminalFilter, charactersCutInTwo_areJoined) {
  TerminalFilter filter;
  EXPECT_EQ(filter.feed("caf\xc3"), "caf");
  EXPECT_EQ(filter.feed("\xa9!"), "\xc3\xa9!");
  EXPECT_EQ(filter.feed("\xf0\x9f"), "");
  EXPECT_EQ(filter.feed("\x90"), "");
  EXPECT_EQ(filter.feed("\xa7"), "\xf0\x9f\x90\xa7");
  EXPECT_EQ(filter.finish(), "");
}

TEST(TerminalFilter, controlCharacterCutInTwo_isStillShown) {
  TerminalFilter filter;
  EXPECT_EQ(filter.feed("\xc2"), "");
  EXPECT_EQ(filter.feed("\x9b"
                        "2J"),
            "\\x9b2J");  // C1: CSI
}

TEST(TerminalFilter, badBytes_doNotWaitForEver) {
  TerminalFilter filter;
  EXPECT_EQ(filter.feed("\x80\x80\x80\x80"), "\\x80\\x80\\x80\\x80");
  EXPECT_EQ(filter.feed("\xe2\x82"), "");
  EXPECT_EQ(filter.finish(), "\\xe2\\x82");
}

}  // namespace
}  // namespace vmmhost::cli
