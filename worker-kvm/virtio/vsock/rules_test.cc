#include "worker-kvm/virtio/vsock/rules.h"

#include <asm/unistd.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <initializer_list>

namespace vmmhost::kvm::virtio::vsock {
namespace {

constexpr std::array<int, 2> kTimers = {9, 11};

bool allows(const std::vector<sock_filter>& program, std::uint32_t number, int descriptor,
            std::initializer_list<std::uint64_t> more = {}) {
  seccomp_data call{};
  call.nr = static_cast<int>(number);
  call.arch = seccomp::kAuditArch;
  call.args[0] = static_cast<std::uint64_t>(descriptor);
  std::copy(more.begin(), more.end(), call.args + 1);
  return seccomp::evaluate(program, call) == SECCOMP_RET_ALLOW;
}

TEST(VsockRules, socketsOfTheRange_andNoOther_areTouched) {
  constexpr std::array<int, 2> kSignals = {12, 15};
  for (const auto& [first, count] : {std::pair{256, 4096}, {4096, 4096}, {300, 1}, {100, 1000}, {0, 77}}) {
    const auto program = seccomp::compile({"test", threadRules(first, count, kTimers, kSignals), {}});
    for (const std::uint32_t number : {__NR_recvmsg, __NR_writev, __NR_shutdown, __NR_close}) {
      for (int descriptor = 0; descriptor < 9000; ++descriptor) {
        ASSERT_EQ(allows(program, number, descriptor), descriptor >= first && descriptor < first + count)
            << number << " on " << descriptor << " of " << first << " + " << count;
      }
    }
  }
}

TEST(VsockRules, sends_peeksAndOptions_areOfOneKindOnly) {
  constexpr std::array<int, 1> kSignals = {12};
  const auto program = seccomp::compile({"test", threadRules(256, 4096, kTimers, kSignals), {}});
  for (const int descriptor : {256, 4351, 255, 4352, 3}) {
    const bool isOurs = descriptor >= 256 && descriptor < 4352;
    EXPECT_EQ(allows(program, __NR_sendto, descriptor, {0x1000, 8, kSendFlags, 0, 0}), isOurs) << descriptor;
    EXPECT_EQ(allows(program, __NR_recvfrom, descriptor, {0x1000, 8, kPeekFlags, 0, 0}), isOurs) << descriptor;
    EXPECT_EQ(allows(program, __NR_setsockopt, descriptor, {SOL_SOCKET, SO_PEEK_OFF, 0x1000, 4}), isOurs) << descriptor;
  }
  EXPECT_FALSE(allows(program, __NR_sendto, 256, {0x1000, 8, kSendFlags, 0x1000, 110})) << "an address";
  EXPECT_FALSE(allows(program, __NR_sendto, 256, {0x1000, 8, kSendFlags, std::uint64_t{1} << 32, 110}));
  EXPECT_FALSE(allows(program, __NR_sendto, 256, {0x1000, 8, kSendFlags | MSG_OOB, 0, 0}));
  EXPECT_FALSE(allows(program, __NR_recvfrom, 256, {0x1000, 8, kPeekFlags, 0x1000, 0x2000})) << "an address";
  EXPECT_FALSE(allows(program, __NR_recvfrom, 256, {0x1000, 8, MSG_DONTWAIT, 0, 0}));
  EXPECT_FALSE(allows(program, __NR_setsockopt, 256, {SOL_SOCKET, SO_SNDBUF, 0x1000, 4}));
  EXPECT_FALSE(allows(program, __NR_setsockopt, 256, {1 + SOL_SOCKET, SO_PEEK_OFF, 0x1000, 4}));
}

TEST(VsockRules, nothingElse_butTheTimersAndTheSignals) {
  constexpr std::array<int, 2> kSignals = {12, 15};
  const auto program = seccomp::compile({"test", threadRules(256, 4096, kTimers, kSignals), {}});
  EXPECT_TRUE(allows(program, __NR_timerfd_settime, 9));
  EXPECT_TRUE(allows(program, __NR_timerfd_settime, 11));
  EXPECT_FALSE(allows(program, __NR_timerfd_settime, 10));
  EXPECT_TRUE(allows(program, __NR_write, 12));
  EXPECT_TRUE(allows(program, __NR_write, 15));
  EXPECT_FALSE(allows(program, __NR_write, 256));
  for (const int number : {__NR_read, __NR_readv, __NR_sendmsg, __NR_sendto, __NR_socket, __NR_connect, __NR_accept4,
                           __NR_openat, __NR_ioctl, __NR_fcntl, __NR_dup3}) {
    EXPECT_FALSE(allows(program, static_cast<std::uint32_t>(number), 256)) << number;
  }
}

}  // namespace
}  // namespace vmmhost::kvm::virtio::vsock
