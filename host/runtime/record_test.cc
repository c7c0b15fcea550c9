#include "host/runtime/record.h"

#include <gtest/gtest.h>

#include "tests/support/refusal.h"

namespace vmmhost::runtime {
namespace {

TEST(RecordTest, whatIsWritten_isRead) {
  Record record;
  record.name = "vm";
  record.backend = "kvm";
  record.supervisorPid = 4711;
  record.cgroups = {"/sys/fs/cgroup/vmmhost/a=b", "/sys/fs/cgroup/vmmhost"};
  record.startedUnixMs = 1'700'000'000'123;
  record.removeOnEnd = true;
  record.consoles = 3;
  const auto read = parseRecord(formatRecord(record));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->name, "vm");
  EXPECT_EQ(read->backend, "kvm");
  EXPECT_EQ(read->supervisorPid, 4711);
  EXPECT_EQ(read->cgroups, record.cgroups);
  EXPECT_EQ(read->startedUnixMs, 1'700'000'000'123);
  EXPECT_TRUE(read->removeOnEnd);
  EXPECT_EQ(read->consoles, 3U);
}

TEST(RecordTest, kind_isWritten_andThatOfAVmWhereNoneIs) {
  Record record;
  record.kind = Kind::kNetwork;
  const auto read = parseRecord(formatRecord(record));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->kind, Kind::kNetwork);
  EXPECT_EQ(parseRecord("name=vm\n")->kind, Kind::kVm);
  EXPECT_EQ(parseRecord(formatRecord(Record()))->kind, Kind::kVm);
}

TEST(RecordTest, valuesThatWouldForgeLines_areRefused) {
  Record record;
  record.cgroups = {"/sys/fs/cgroup/vmmhost\ncgroup=/sys/fs/cgroup/other"};
  tests::expectRefusal("a record cannot hold a cgroup with a line break", [&] { formatRecord(record); });
}

TEST(RecordTest, damagedRecords_areRefused) {
  EXPECT_FALSE(parseRecord("name=x"));
  EXPECT_FALSE(parseRecord("no equals sign\nname=x\n"));
  EXPECT_FALSE(parseRecord("supervisorPid=12x\n"));
  EXPECT_FALSE(parseRecord("supervisorPid=99999999999999\n"));
  EXPECT_FALSE(parseRecord("removeOnEnd=yes\n"));
  EXPECT_FALSE(parseRecord("consoles=-1\n"));
  EXPECT_FALSE(parseRecord("kind=\n"));
  EXPECT_FALSE(parseRecord("kind=router\n"));
  EXPECT_FALSE(parseRecord(std::string(kMaxRecordBytes + 1, '\n')));
  std::string many;
  for (int count = 0; count < 65; ++count) {
    many += "cgroup=/x\n";
  }
  EXPECT_FALSE(parseRecord(many));
  EXPECT_TRUE(parseRecord("later=version\n"));
  EXPECT_TRUE(parseRecord(""));
}

}  // namespace
}  // namespace vmmhost::runtime
