#include "host/jailed/process_log.h"

#include <gtest/gtest.h>

#include "host/jailed/test_log.h"

namespace vmmhost::jailed {
namespace {

const kj::TimePoint kBegin = kj::origin<kj::TimePoint>();
using Lines = std::vector<std::string>;

class ProcessLogTest : public ::testing::Test {
 protected:
  TestLog file_;
  ProcessLog log_{file_.log(), "switch", kBegin};
};

TEST_F(ProcessLogTest, lines_areThoseThatEnd_withTheirSeverity) {
  log_.add("W memory is sh", kBegin);
  EXPECT_EQ(file_.lines(), Lines());
  log_.add("ort\nE failed\nx nothing\n\nbegun", kBegin);
  EXPECT_EQ(file_.lines(), (Lines{"warning switch: memory is short", "error switch: failed", "info switch: x nothing",
                                  "info switch: "}));
  log_.finish(kBegin);
  log_.finish(kBegin);
  EXPECT_EQ(file_.lines().back(), "info switch: begun");
  EXPECT_EQ(log_.last(), (std::deque<std::string>{"memory is short", "failed", "x nothing", "", "begun"}));
}

TEST_F(ProcessLogTest, lineWithoutEnd_isCut) {
  for (int piece = 0; piece < 100; ++piece) {
    log_.add(std::string(1000, 'a'), kBegin);
  }
  log_.add("\nnext\n", kBegin);
  ASSERT_EQ(log_.last().size(), 2u);
  EXPECT_EQ(log_.last()[0], std::string(ProcessLog::kMaxLine, 'a'));
  EXPECT_EQ(log_.last()[1], "next");
}

TEST_F(ProcessLogTest, textIsMadeFitToBeShown) {
  log_.add("a\x1b[2J\n", kBegin);
  EXPECT_EQ(log_.last()[0], "a\\x1b[2J");
  EXPECT_EQ(file_.lines()[0], "info switch: a\\x1b[2J");
}

TEST_F(ProcessLogTest, linesBeyondTheRate_areCounted_andTheLastKept) {
  const std::string line(1023, 'a');
  for (int count = 0; count < 100; ++count) {
    log_.add(line + '\n', kBegin);
  }
  EXPECT_EQ(file_.lines().size(), 64u);
  log_.add("I late\n", kBegin + 999 * kj::MILLISECONDS);
  EXPECT_EQ(file_.lines().size(), 64u);
  EXPECT_EQ(log_.last().size(), ProcessLog::kKeptLines);
  EXPECT_EQ(log_.last().back(), "late");
  log_.add("I again\n", kBegin + 1 * kj::SECONDS);
  const Lines all = file_.lines();
  ASSERT_EQ(all.size(), 66u);
  EXPECT_EQ(all[64], "warning switch: 37 log lines dropped");
  EXPECT_EQ(all[65], "info switch: again");
}

}  // namespace
}  // namespace vmmhost::jailed
