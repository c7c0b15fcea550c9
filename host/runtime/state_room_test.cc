#include "host/runtime/state_room.h"

#include <stdlib.h>

#include <string>

#include "host/runtime/record.h"
#include "host/runtime/testing.h"

namespace vmmhost::runtime {
namespace {

using namespace testing;

constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20;

class StateRoomTest : public RuntimeTest {
 protected:
  ~StateRoomTest() override { ::unsetenv("VMMHOST_STATE_LIMIT"); }

  void limit(const std::string& size) { ::setenv("VMMHOST_STATE_LIMIT", size.c_str(), 1); }
  void makeNetwork(const std::string& name, std::size_t bytes) {
    fs::create_directories(state(networkName(name).folder()));
    write(state(networkName(name).folder()) / "vmmhost.log", std::string(bytes, 'x'));
  }
  void ended(const std::string& name, std::size_t bytes) {
    fs::create_directories(state(name));
    write(state(name) / "console.log", std::string(bytes, 'x'));
  }
  bool hasRoom(std::uint32_t consoles = 1) {
    try {
      requireStateRoom(directories, vmName("new"), stateBounds(consoles));
      return true;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted) << error.message();
      EXPECT_NE(error.message().find((root / "state").string()), std::string::npos) << error.message();
      EXPECT_NE(error.hint().find("vmmhost rm"), std::string::npos) << error.hint();
      return false;
    }
  }
};

TEST_F(StateRoomTest, bounds_growWithTheConsoles) {
  const StateBounds one = stateBounds(0);
  EXPECT_EQ(one.consoleLogs, 8 * kMebibyte);
  EXPECT_EQ(one.vmLog, 2 * kMebibyte);
  EXPECT_EQ(one.exitRecord, kMebibyte);
  EXPECT_EQ(one.vm, 11 * kMebibyte);
  EXPECT_EQ(one.user, std::uint64_t{16} << 30);
  EXPECT_EQ(stateBounds(1).vm, one.vm);
  EXPECT_EQ(stateBounds(8).vm, 67 * kMebibyte);
  limit("64M");
  EXPECT_EQ(stateBounds(1).user, 64 * kMebibyte);
  limit("much");
  EXPECT_NE(errorOf([] { stateBounds(1); }).message().find("VMMHOST_STATE_LIMIT"), std::string::npos);
}

TEST_F(StateRoomTest, whatEndedVmsLeft_countsByWhatItTakes) {
  limit("16M");
  EXPECT_TRUE(hasRoom());
  ended("a", 4 * kMebibyte);
  EXPECT_TRUE(hasRoom());
  ended("b", 2 * kMebibyte);
  EXPECT_FALSE(hasRoom());
  fs::remove_all(state("b"));
  EXPECT_TRUE(hasRoom());
  EXPECT_FALSE(hasRoom(2)) << "one with more consoles may say more";
}

TEST_F(StateRoomTest, vmsThatRun_countByWhatTheyMayComeToTake) {
  limit("32M");
  ended("a", 100);
  ended("b", 100);
  EXPECT_TRUE(hasRoom());
  fs::create_directories(run("a"));
  EXPECT_TRUE(hasRoom());
  write(state("a") / "console.1.log", "");  // it has two
  EXPECT_TRUE(hasRoom());
  fs::create_directories(run("b"));
  EXPECT_FALSE(hasRoom());
}

TEST_F(StateRoomTest, vmsThatRun_countWithTheConsolesThatTheyWillHave) {
  limit("32M");
  ended("a", 100);
  fs::create_directories(run("a"));
  EXPECT_TRUE(hasRoom());
  Record record;
  record.name = "a";
  record.consoles = 3;  // none has said anything
  write(run("a") / kRecordFile, formatRecord(record));
  EXPECT_FALSE(hasRoom());
}

TEST_F(StateRoomTest, holesTakeNothing_andWhatIsNewDoesNotCountItself) {
  limit("16M");
  ended("a", 100);
  fs::resize_file(state("a") / "console.log", 1 << 30);
  EXPECT_TRUE(hasRoom());
  ended("new", 14 * kMebibyte);
  EXPECT_TRUE(hasRoom());
}

TEST_F(StateRoomTest, networks_countAsVmsDo) {
  limit("16M");
  makeNetwork("new", 6 * kMebibyte);  // called as the VM that comes, and another thing
  const Error error = errorOf([&] { requireStateRoom(directories, vmName("new"), stateBounds(1)); });
  EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
  EXPECT_NE(error.message().find("VMs and networks"), std::string::npos) << error.message();
  EXPECT_NE(error.hint().find("vmmhost network rm"), std::string::npos) << error.hint();
  EXPECT_NO_THROW(requireStateRoom(directories, networkName("new"), stateBounds(0, Kind::kNetwork)));
}

TEST_F(StateRoomTest, networksThatRun_countByWhatTheyMayComeToTake) {
  EXPECT_EQ(stateBounds(0, Kind::kNetwork).vm, 3 * kMebibyte);
  limit("16M");
  makeNetwork("a", 100);
  makeNetwork("b", 100);
  EXPECT_TRUE(hasRoom());
  fs::create_directories(run(networkName("a").folder()));
  EXPECT_TRUE(hasRoom());
  fs::create_directories(run(networkName("b").folder()));
  EXPECT_FALSE(hasRoom());
}

}  // namespace
}  // namespace vmmhost::runtime
