#include "host/plugin/log_sink.h"

#include <gtest/gtest.h>

#include "vmmhost/plugin.h"

namespace vmmhost::plugin {
namespace {

TEST(ProbeLogTest, linesOfALog_comeOutAsTheyWere_butForWhatIsNotWorthIt) {
  const auto lines = parseProbeLog(probeLogLine(VMMHOST_LOG_DEBUG, "a") + probeLogLine(VMMHOST_LOG_INFO, "b") +
                                   probeLogLine(VMMHOST_LOG_WARNING, "c") + probeLogLine(VMMHOST_LOG_ERROR, "E d"));
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].level, VMMHOST_LOG_WARNING);
  EXPECT_EQ(lines[0].text, "c");
  EXPECT_EQ(lines[1].level, VMMHOST_LOG_ERROR);
  EXPECT_EQ(lines[1].text, "E d");
}

TEST(ProbeLogTest, whatElseIsWritten_isAWarning) {
  const auto lines = parseProbeLog("\n\x1b[2Jhere\n\nand there");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].level, VMMHOST_LOG_WARNING);
  EXPECT_EQ(lines[0].text, "\\x1b[2Jhere");
  EXPECT_EQ(lines[1].text, "and there");
}

TEST(ProbeLogTest, whatIsTooMuch_isCut) {
  std::string text;
  for (int line = 0; line < 100; ++line) {
    text += std::string(5000, 'x') + '\n';
  }
  const auto lines = parseProbeLog(text);
  EXPECT_EQ(lines.size(), 32u);
  EXPECT_LE(lines[0].text.size(), 1100u);
  EXPECT_TRUE(parseProbeLog("").empty());
}

}  // namespace
}  // namespace vmmhost::plugin
