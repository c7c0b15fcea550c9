#include "host/vm/life.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace vmmhost::vm {
namespace {

using schema::VmState;

class LifeTest : public testing::Test {
 protected:
  Life::Watcher recordInto(std::vector<VmState>& seen) {
    return [&seen](VmState state, std::int64_t, const std::string&) { seen.push_back(state); };
  }

  Log log_{nullptr, false};
  Life life_{log_};
};

TEST_F(LifeTest, eachChange_isToldOnce_inOrder) {
  std::vector<VmState> seen;
  const auto watch = life_.watch(recordInto(seen));
  life_.setState(VmState::CREATED);
  life_.setState(VmState::RUNNING);
  life_.setState(VmState::RUNNING);
  life_.setState(VmState::ENDED, "done");
  EXPECT_EQ(seen, (std::vector{VmState::CREATED, VmState::RUNNING, VmState::ENDED}));
}

TEST_F(LifeTest, watcherThatLeft_hearsNothing_othersDo) {
  std::vector<VmState> first;
  std::vector<VmState> second;
  auto leaving = life_.watch(recordInto(first));
  const auto staying = life_.watch(recordInto(second));
  life_.setState(VmState::CREATED);
  leaving.reset();
  life_.setState(VmState::RUNNING);
  EXPECT_EQ(first, std::vector{VmState::CREATED});
  EXPECT_EQ(second, (std::vector{VmState::CREATED, VmState::RUNNING}));
}

TEST_F(LifeTest, watcherThatLeavesWhileItIsTold_isToldNoMore) {
  std::vector<VmState> seen;
  std::unique_ptr<Life::Watch> leaving;
  leaving = life_.watch([&](VmState, std::int64_t, const std::string&) { leaving.reset(); });
  const auto staying = life_.watch(recordInto(seen));
  life_.setState(VmState::CREATED);
  life_.setState(VmState::RUNNING);
  EXPECT_EQ(seen, (std::vector{VmState::CREATED, VmState::RUNNING}));
}

TEST_F(LifeTest, end_beginsOnce) {
  EXPECT_FALSE(life_.isEnding());
  EXPECT_TRUE(life_.beginEnd());
  EXPECT_FALSE(life_.beginEnd());
  EXPECT_TRUE(life_.isEnding());
}

TEST_F(LifeTest, timings_areKeptInOrder) {
  life_.addTiming("exec", 1);
  life_.mark("files-open");
  ASSERT_EQ(life_.timings().size(), 2u);
  EXPECT_EQ(life_.timings()[0], (std::pair<std::string, std::uint64_t>{"exec", 1}));
  EXPECT_EQ(life_.timings()[1].first, "files-open");
  EXPECT_GT(life_.timings()[1].second, 1u);
}

}  // namespace
}  // namespace vmmhost::vm
