#include "host/base/text.h"

#include <gtest/gtest.h>

namespace vmmhost {
namespace {

TEST(Text, utf8_isToldFromOtherBytes) {
  EXPECT_TRUE(isUtf8(""));
  EXPECT_TRUE(isUtf8("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xa7"));
  EXPECT_FALSE(isUtf8("\xc0\x80"));          // overlong NUL
  EXPECT_FALSE(isUtf8("\xe0\x9f\xbf"));      // overlong
  EXPECT_FALSE(isUtf8("\xed\xa0\x80"));      // surrogate
  EXPECT_FALSE(isUtf8("\xf4\x90\x80\x80"));  // beyond U+10FFFF
  EXPECT_FALSE(isUtf8("\xe2\x82"));          // cut short
  EXPECT_FALSE(isUtf8("\x80"));
  EXPECT_FALSE(isUtf8("\xff"));
}

TEST(Text, printable_showsWhatATerminalWouldObey) {
  EXPECT_EQ(printable("a\x1b[2Jb\n\t\x7f"), "a\\x1b[2Jb\\n\\t\\x7f");
  EXPECT_EQ(printable("\xc2\x9b"), "\\x9b");        // C1: CSI
  EXPECT_EQ(printable("\xe2\x80\xae"), "\\u202e");  // right-to-left override
  EXPECT_EQ(printable("caf\xc3\xa9 \xff"), "caf\xc3\xa9 \\xff");
}

TEST(Text, printable_cutsBetweenCharacters) {
  EXPECT_EQ(printable("abcdef", 5), "ab...");
  EXPECT_EQ(printable("ab\xc3\xa9 cd", 6), "ab...");
  EXPECT_EQ(printable("abcdef", 3), "...");
  EXPECT_EQ(printable("abc", 3), "abc");
  EXPECT_EQ(printable("\x01", 4), "\\x01");
  EXPECT_EQ(printable("a\x01\x02", 8), "a\\x01...");
  EXPECT_EQ(printable("a\x01\x02", 7), "a...");
  EXPECT_EQ(inQuotes("x"), "\"x\"");
}

TEST(Text, printable_changesNothingTheSecondTime) {
  const std::string text = "a\x1b\xc2\x9b caf\xc3\xa9 \xff\xe2\x80\xae\n\xf0\x9f\x98\x80.";
  for (std::size_t max = 3; max < 4 * text.size(); ++max) {
    const std::string once = printable(text, max);
    EXPECT_LE(once.size(), max);
    EXPECT_EQ(printable(once, max), once) << max;
  }
}

}  // namespace
}  // namespace vmmhost
