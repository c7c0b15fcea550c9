#include "host/jailed/kernel_log.h"

#include <gtest/gtest.h>
#include <kj/async-io.h>
#include <linux/audit.h>
#include <sys/socket.h>

#include <string>

namespace vmmhost::jailed {
namespace {

// As Linux 6.18 writes it.
const std::string kRecord =
    R"(5,22891,52422121011,-;audit: type=1326 audit(1796080610.815:89406): auid=4294967295 uid=0 gid=0 ses=4294967295 )"
    R"(pid=7773 comm="test" exe="/usr/bin/sleep" sig=31 arch=c000003e syscall=290 compat=0 ip=0x7f36fe726e07 )"
    "code=0x80000000\n SUBSYSTEM=net\n";

std::string changed(const std::string& from, const std::string& to) {
  std::string record = kRecord;
  const std::size_t at = record.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return record.replace(at, from.size(), to);
}

TEST(ForbiddenCall, isThatOfTheProcess) {
  const auto call = parseForbiddenCall(kRecord, 7773);
  ASSERT_TRUE(call);
  EXPECT_EQ(call->architecture, AUDIT_ARCH_X86_64);
  EXPECT_EQ(call->number, 290);
  EXPECT_FALSE(parseForbiddenCall(kRecord, 777));
  EXPECT_FALSE(parseForbiddenCall(kRecord, 77730));
  EXPECT_EQ(parseForbiddenCall(changed("syscall=290", "syscall=-1"), 7773)->number, -1);
}

TEST(ForbiddenCall, recordOfAnotherKind_hasNone) {
  for (const std::string& record :
       {std::string(), std::string(";"), changed("5,", "12,"), changed("5,", "-5,"), changed("5,", ""),
        changed("-;audit", "-;not audit"), changed("=1326", "=1325"), changed("sig=31", "sig=9"),
        changed(" pid=7773", ""), changed("arch=c000003e", "arch=x"), changed("syscall=290", "syscall="),
        changed("syscall=290", "syscall=99999999999999999999"), kRecord.substr(0, kRecord.find(" syscall")),
        changed(" sig=31", "\n sig=31")}) {
    EXPECT_FALSE(parseForbiddenCall(record, 7773)) << record;
  }
}

// The kernel writes a name with a blank or a quotation mark as digits, and so none makes a field.
TEST(ForbiddenCall, nameOfAProgram_isNoField) {
  const auto call = parseForbiddenCall(changed("comm=\"test\"", "comm=\"syscall=1\""), 7773);
  ASSERT_TRUE(call);
  EXPECT_EQ(call->number, 290);
  EXPECT_FALSE(parseForbiddenCall(changed("pid=7773 comm=\"test\"", "pid=1 comm=\"pid=7773\""), 7773));
}

TEST(ForbiddenCall, isNamedWhereItsNameIsKnown) {
  EXPECT_EQ(describe({AUDIT_ARCH_X86_64, 290}), "system call 290 (eventfd2)");
  EXPECT_EQ(describe({AUDIT_ARCH_X86_64, 0x40000029}), "system call 1073741865");
  EXPECT_EQ(describe({AUDIT_ARCH_I386, 102}), "system call 102 of 32-bit programs");
  EXPECT_EQ(describe({AUDIT_ARCH_AARCH64, 198}), "system call 198");
}

class KernelLogTest : public ::testing::Test {
 protected:
  KernelLogTest() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    kernel_.reset(ends[0]);
    log_ = KernelLog(Fd(ends[1]));
  }
  ~KernelLogTest() noexcept override {}  // KJ's members may throw from theirs

  void write(const std::string& record) const {
    EXPECT_EQ(::send(kernel_.get(), record.data(), record.size(), 0), static_cast<ssize_t>(record.size()));
  }
  auto find(kj::Duration patience) { return log_.find(io_.provider->getTimer(), 7773, patience); }

  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  Fd kernel_;
  KernelLog log_{Fd()};
};

TEST_F(KernelLogTest, recordAmongOthers_isFound) {
  for (int count = 0; count < 100; ++count) {
    write(changed("pid=7773", "pid=" + std::to_string(count)));
  }
  write(kRecord);
  write(changed("syscall=290", "syscall=1"));
  EXPECT_EQ(find(0 * kj::SECONDS).wait(io_.waitScope).value().number, 290);
}

TEST_F(KernelLogTest, recordThatComesLate_isWaitedFor) {
  auto found = find(60 * kj::SECONDS);
  EXPECT_FALSE(found.poll(io_.waitScope));
  write("6,1,1,-;other\n");
  EXPECT_FALSE(found.poll(io_.waitScope));
  write(kRecord);
  EXPECT_EQ(found.wait(io_.waitScope).value().number, 290);
}

TEST_F(KernelLogTest, recordThatNeverComes_isNotWaitedForLong) {
  write("6,1,1,-;other\n");
  EXPECT_FALSE(find(5 * kj::MILLISECONDS).wait(io_.waitScope));
}

TEST_F(KernelLogTest, logThatCannotBeRead_hasNothing) {
  kernel_.reset();
  EXPECT_FALSE(find(60 * kj::SECONDS).wait(io_.waitScope));
  log_ = KernelLog(Fd());
  EXPECT_FALSE(find(60 * kj::SECONDS).wait(io_.waitScope));
}

}  // namespace
}  // namespace vmmhost::jailed
